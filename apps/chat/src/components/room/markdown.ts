import DOMPurify from 'dompurify'
import MarkdownIt from 'markdown-it'

const KEPT = 400
const TAGS = ['p', 'br', 'strong', 'em', 's', 'code', 'pre', 'a', 'blockquote', 'ul', 'ol', 'li']

const parser = new MarkdownIt({ html: false, linkify: true, breaks: true, typographer: false })
// Images would be fetched from other hosts; headings, rules and tables do not suit chat messages.
parser.disable(['image', 'heading', 'lheading', 'hr', 'table', 'reference', 'html_block', 'html_inline'])
parser.validateLink = (url) => /^(https?:|mailto:)/i.test(url.trim())

const rendered = new Map<string, DocumentFragment>()

/** An address that begins with a name, as `https://bank.example@evil.example` does, reads like one of another host. */
const WITH_NAME = /^(?:https?:\/\/)?[^/?#]*@/i

/** Where a link leads, in short: the host, or the address of a mail. */
function target(url: string): string | null {
  try {
    const { protocol, host, pathname } = new URL(url)
    return protocol === 'mailto:' ? decodeURIComponent(pathname) : host
  } catch {
    return null
  }
}

/** Shows the target behind the text of a link that says anything else: text can be chosen to look like another one. */
function showTarget(link: HTMLAnchorElement): void {
  const to = target(link.href)
  const said = (link.textContent ?? '').trim()
  const says = /^[a-z]+:/i.test(said) ? said : `https://${said}`
  const saysIt = said === to || (target(says) === to && !WITH_NAME.test(said))
  if (to !== null && !saysIt) link.append(` (${to})`)
}

/** Renders Markdown: only the elements in TAGS, and only web and mail links, which open in a new tab. */
export function render(text: string): DocumentFragment {
  const known = rendered.get(text)
  if (known) return known.cloneNode(true) as DocumentFragment
  const fragment = DOMPurify.sanitize(parser.render(text), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ['href', 'start'],
    ALLOW_DATA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  })
  for (const link of fragment.querySelectorAll('a')) {
    link.target = '_blank'
    link.rel = 'noopener noreferrer nofollow'
    showTarget(link)
  }
  for (const block of fragment.querySelectorAll('pre')) block.tabIndex = 0
  if (rendered.size >= KEPT) rendered.delete(rendered.keys().next().value ?? '')
  rendered.set(text, fragment)
  return fragment.cloneNode(true) as DocumentFragment
}
