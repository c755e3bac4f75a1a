// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { VueWrapper } from '@vue/test-utils'
import { defineComponent, h, provide } from 'vue'
import { MESSAGE_ACTIONS, type MessageActions } from '@/components/room/messageActions'
import MessageRow from '@/components/room/MessageRow.vue'
import { rowsOf } from '@/components/room/timelineRows'
import { message, reset, type ChatMessage } from '../fakes/stores'
import { settle, show } from './mount'

vi.mock('@/stores', () => import('../fakes/stores'))

const DAY_MS = 86_400_000

describe('the lines of a timeline', () => {
  const kinds = (list: ChatMessage[], unreadSince: number | null = null): string[] =>
    rowsOf(list, unreadSince).map((row) => (row.kind === 'message' && row.head ? 'head' : row.kind))

  it('begin every day with its date, and every person with a name', () => {
    const start = new Date(2026, 0, 5, 12).getTime()
    const list = [
      message({ timestamp: start }),
      message({ timestamp: start + 1000 }),
      message({ timestamp: start + 2000, userId: 'u-bob', name: 'Bob' }),
      message({ timestamp: start + DAY_MS, userId: 'u-bob', name: 'Bob' }),
    ]
    expect(kinds(list)).toEqual(['date', 'head', 'message', 'head', 'date', 'head'])
  })

  it('name a person again after five minutes, after a system line, and for an answer', () => {
    const start = new Date(2026, 0, 5, 12).getTime()
    const list = [
      message({ timestamp: start }),
      message({ timestamp: start + 301_000 }),
      message({ timestamp: start + 302_000, kind: 'system', line: { kind: 'joined', params: { name: 'Bob' } } }),
      message({ timestamp: start + 303_000 }),
      message({ timestamp: start + 304_000, replyTo: { msgId: 'x', name: 'Ada', text: null } }),
    ]
    expect(kinds(list)).toEqual(['date', 'head', 'head', 'system', 'head', 'head'])
  })

  it('say who shared a stretch of history, and where it ends', () => {
    const start = new Date(2026, 0, 5, 12).getTime()
    const bob = { userId: 'u-bob', name: 'Bob', color: '#000000' }
    const list = [
      message({ timestamp: start, relayedBy: bob }),
      message({ timestamp: start + 1, relayedBy: { ...bob } }),
      message({ timestamp: start + 2 }),
      message({ timestamp: start + 3, relayedBy: { ...bob, userId: 'u-eve', name: 'Eve' } }),
    ]
    expect(kinds(list)).toEqual(['date', 'relayed', 'head', 'message', 'head', 'relayed', 'head'])
    expect(rowsOf(list, null)[1]).toMatchObject({ kind: 'relayed', name: 'Bob' })
  })

  it('mark once where the unread part begins, never before an own message', () => {
    const start = new Date(2026, 0, 5, 12).getTime()
    const list = [
      message({ timestamp: start }),
      message({ timestamp: start + 1, own: true }),
      message({ timestamp: start + 2 }),
      message({ timestamp: start + 3 }),
    ]
    expect(kinds(list, start)).toEqual(['date', 'head', 'message', 'new', 'head', 'message'])
    expect(kinds(list, start + 3)).not.toContain('new')
  })
})

describe('a message', () => {
  let wrapper: VueWrapper
  let actions: Record<keyof MessageActions, ReturnType<typeof vi.fn>>

  beforeEach(() => {
    reset()
    const names = ['reply', 'edit', 'remove', 'react', 'copy', 'retry', 'discard', 'view', 'profile', 'jump'] as const
    actions = Object.fromEntries(names.map((name) => [name, vi.fn()])) as typeof actions
  })
  afterEach(() => wrapper.unmount())

  async function row(change: Partial<ChatMessage>): Promise<ChatMessage> {
    const one = message(change)
    const Frame = defineComponent(() => {
      provide(MESSAGE_ACTIONS, actions as unknown as MessageActions)
      return () => h(MessageRow, { message: one, tabindex: 0 })
    })
    ;({ wrapper } = await show(Frame))
    return one
  }

  it('shows HTML as the text that it is', async () => {
    await row({ text: '<b onclick="x()">bold</b>' })
    expect(wrapper.find('b').exists()).toBe(false)
    expect(wrapper.text()).toContain('<b onclick="x()">bold</b>')
  })

  it.each(['https://tracker.example/x.png', 'javascript:alert(1)', 'data:text/html,<p>'])(
    'never fetches a picture from %s',
    async (image) => {
      await row({ kind: 'image', image })
      expect(wrapper.find('img').exists()).toBe(false)
    },
  )

  it('has six reactions one press away', async () => {
    const one = await row({})
    await wrapper.get('article').trigger('pointerenter')
    const quick = wrapper.findAll('button[aria-label^="React with"]')
    expect(quick.map((button) => button.text())).toEqual(['👍️', '❤️', '😂', '🎉', '😮', '😢'])
    await quick[3]!.trigger('click')
    expect(actions.react).toHaveBeenCalledWith(one, '🎉')
  })

  it('names an author whose name others have, too, with a piece of the id', async () => {
    await row({ name: 'Anna', idMark: 'a1b2c3', text: 'x' })
    expect(wrapper.get('.id-mark').text()).toBe('a1b2c3')
    expect(wrapper.get('article').attributes('aria-label')).toMatch(/^Anna \(a1b2c3\), .*: x$/)
  })

  it('shows a picture with its description, and opens it', async () => {
    const one = await row({ kind: 'image', image: 'data:image/png;base64,AAAA', alt: 'A cat', text: '' })
    expect(wrapper.get('img').attributes('alt')).toBe('A cat')
    await wrapper.get('button[aria-label="Open image: A cat"]').trigger('click')
    expect(actions.view).toHaveBeenCalledWith(one)
  })

  it.each([
    [{ deleted: true }, 'This message was deleted.'],
    [{ deleted: true, unproven: true }, 'author not verified'],
    [{ edited: true }, '(edited)'],
    [{ edited: true, unproven: true }, 'edited, author not verified'],
    [{ secrecy: 'unreadable' }, 'Its key has not arrived yet.'],
    [{ secrecy: 'exposed' }, 'Not encrypted'],
    [{ verification: 'unverified' }, 'Not verified'],
  ] as const)('with %j says so', async (change, words) => {
    await row(change)
    expect(wrapper.text()).toContain(words)
  })

  it('hides the text of what was deleted or cannot be read', async () => {
    await row({ deleted: true, text: 'gone' })
    expect(wrapper.text()).not.toContain('gone')
    wrapper.unmount()
    await row({ secrecy: 'unreadable', text: 'AAECAwQ=' })
    expect(wrapper.text()).not.toContain('AAECAwQ=')
  })

  it.each([
    ['queued', 'Waiting for a connection'],
    ['waiting', 'Waiting for the encryption key'],
    ['sent', 'Sending'],
  ] as const)('of one’s own that is %s has the mark «%s»', async (delivery, label) => {
    await row({ own: true, delivery })
    expect(wrapper.find(`[role=img][aria-label="${label}"]`).exists()).toBe(true)
  })

  it('that is delivered, or of somebody else, has no mark', async () => {
    for (const change of [{ own: true }, { verification: 'verified' as const }]) {
      await row(change)
      expect(wrapper.find('[role=img].mark').exists()).toBe(false)
      wrapper.unmount()
    }
    await row({})
  })

  it('is called by name, time and text, or by what stands in their place', async () => {
    const named = (): string => wrapper.get('article').attributes('aria-label') ?? ''
    await row({ text: 'Hello there' })
    expect(named()).toMatch(/^Ada, .+: Hello there$/)
    for (const [change, words] of [
      [{ deleted: true }, 'This message was deleted.'],
      [{ secrecy: 'unreadable' as const }, 'Encrypted message. Its key has not arrived yet.'],
      [{ text: '', alt: 'a cat' }, 'a cat'],
      [{ text: 'x'.repeat(500) }, `${'x'.repeat(200)}…`],
    ] as const) {
      wrapper.unmount()
      await row(change)
      expect(named().endsWith(words)).toBe(true)
    }
  })

  it('that is very long is folded until one unfolds it', async () => {
    await row({ text: 'word '.repeat(500) })
    expect(wrapper.find('.folded').exists()).toBe(true)
    await wrapper.get('.fold').trigger('click')
    expect(wrapper.find('.folded').exists()).toBe(false)
    expect(wrapper.get('.fold').text()).toBe('Show less')
  })

  it('that failed says why, and offers to try again or to discard', async () => {
    const one = await row({
      own: true,
      delivery: 'failed',
      failure: { kind: 'forbidden', reason: null, detail: 'banned' },
    })
    expect(wrapper.get('[role=alert]').text()).toBe(
      'Not sent. You do not have permission to do this. Server response: “banned”',
    )
    const [retry, discard] = wrapper.findAll('.failure button')
    await retry?.trigger('click')
    await discard?.trigger('click')
    expect(actions.retry).toHaveBeenCalledWith(one)
    expect(actions.discard).toHaveBeenCalledWith(one)
  })

  it('leads to what it quotes', async () => {
    await row({ replyTo: { msgId: 'm-old', name: 'Grace', text: 'before' } })
    await wrapper.get('.quote').trigger('click')
    expect(actions.jump).toHaveBeenCalledWith('m-old')
  })

  it('toggles a reaction that names its people', async () => {
    const one = await row({ reactions: [{ emoji: '🎉', count: 2, mine: true, names: ['Ada', 'Me'] }] })
    const button = wrapper.get('.reaction')
    expect(button.attributes('aria-pressed')).toBe('true')
    expect(button.attributes('aria-label')).toContain('Ada, Me')
    await button.trigger('click')
    expect(actions.react).toHaveBeenCalledWith(one, '🎉')
  })

  it.each([
    ['r', 'reply'],
    ['e', 'edit'],
    ['Delete', 'remove'],
  ] as const)('in focus answers the key %s', async (key, action) => {
    const one = await row({ own: true })
    await wrapper.get('article').trigger('keydown', { key })
    expect(actions[action]).toHaveBeenCalledWith(one)
  })

  it('renders what is written as Markdown, and only harmless elements of it', async () => {
    await row({ text: '**bold** [x](javascript:alert(1)) ![p](https://t.example/p.png) <script>x</script>' })
    await vi.waitFor(() => expect(wrapper.find('strong').exists()).toBe(true), { timeout: 60_000 })
    await settle()
    expect(wrapper.find('.text img, .text script, .text [href^="javascript"]').exists()).toBe(false)
  })
})
