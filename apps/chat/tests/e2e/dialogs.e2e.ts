/**
 * Every page, panel, menu and dialog: in each theme without flaws that axe finds, and on the smallest screen, in both
 * languages, without words that are cut or lie outside.
 *
 * `LOOK=folder` takes a picture of each at five widths, in every theme and language, to be looked at.
 */
import { mkdir, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath, URL } from 'node:url'
import type { AxeResults } from 'axe-core'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

const PICTURE = fileURLToPath(new URL('../../public/icons/icon-512.png', import.meta.url))
const THEMES = ['light', 'dark', 'contrast'] as const
const LANGUAGES = ['en', 'de'] as const
const USUAL = { width: 1280, height: 800 }
const SMALLEST = { width: 320, height: 640 }
const SIZES = [
  SMALLEST,
  { width: 375, height: 740 },
  { width: 768, height: 1024 },
  USUAL,
  { width: 2560, height: 1440 },
]

interface Scene {
  readonly name: string
  readonly who: Person
  open(): Promise<unknown>
  /** Waits until it is there; without it, for a dialog. */
  shown?(): Promise<unknown>
  /** Another width of the window closes it: opens it again, by its English words. */
  again?(): Promise<unknown>
  close?(): Promise<unknown>
}

/** What does not fit, of the topmost dialog or of the page. */
function misfits(): string[] {
  const { clientWidth, scrollWidth } = document.documentElement
  const found = scrollWidth > clientWidth ? [`the page is ${scrollWidth} wide`] : []
  const root = [...document.querySelectorAll('[role=dialog], [role=alertdialog], [role=menu]')].at(-1) ?? document.body
  for (const element of root.querySelectorAll<HTMLElement>('button, a, label, legend, h1, h2, h3, p, strong, dt, dd')) {
    const { overflowX, display, textOverflow, visibility } = getComputedStyle(element)
    const { left, right, width } = element.getBoundingClientRect()
    const words = (element.textContent?.trim() || (element.getAttribute('aria-label') ?? '')).slice(0, 40)
    const isHidden = visibility === 'hidden' || width <= 1 || element.closest('.visually-hidden, [inert], pre') !== null
    if (isHidden || words === '') continue
    const mayScroll = overflowX === 'auto' || overflowX === 'scroll' || display === 'inline'
    if (textOverflow !== 'ellipsis' && !mayScroll && element.scrollWidth > element.clientWidth + 1)
      found.push(`cut: ${words}`)
    if (left < -1 || right > clientWidth + 1) found.push(`outside: ${words}`)
  }
  return found
}

describe('whatever is on screen', () => {
  let axe: string
  let browser: Browser
  let relay: Relay
  const folder = process.env['LOOK']
  const patienceMs = folder ? 3_000_000 : 400_000

  beforeAll(async () => {
    axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
    if (folder) await mkdir(folder, { recursive: true })
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })

  const paint = (page: Page, theme: string): Promise<unknown> =>
    page.evaluate((wanted) => (document.documentElement.dataset['theme'] = wanted), theme)

  /** As the settings do. */
  async function speak(page: Page, locale: string): Promise<void> {
    await page.evaluate((wanted) => {
      interface Root {
        __vue_app__: { config: { globalProperties: { $pinia: { _s: Map<string, { set(change: object): void }> } } } }
      }
      const root = document.querySelector('#app') as unknown as Root
      root.__vue_app__.config.globalProperties.$pinia._s.get('settings')?.set({ locale: wanted })
    }, locale)
    await page.locator(`html[lang=${locale}]`).waitFor()
  }

  /** Colours that are still changing are nobody's, and an animation blends them. */
  async function settled(page: Page): Promise<void> {
    await page.evaluate(async () => {
      const frame = () => new Promise((resolve) => requestAnimationFrame(resolve))
      await frame()
      const ending = document.getAnimations().filter((one) => one.effect?.getComputedTiming().endTime !== Infinity)
      await Promise.allSettled(ending.map((one) => one.finished))
      await frame()
    })
  }

  /** What axe finds in what is on top; in another theme only the colours are others. */
  async function flaws(page: Page, isFirst: boolean): Promise<string[]> {
    if (isFirst) await page.evaluate(axe)
    const { violations } = await page.evaluate(
      (wanted) => {
        const top = [...document.querySelectorAll('[role=dialog], [role=alertdialog], [role=menu]')].at(-1)
        interface Axe {
          run(what: Node, options: object): AxeResults
        }
        return (window as unknown as { axe: Axe }).axe.run(top ?? document, wanted ? { runOnly: wanted } : {})
      },
      isFirst ? null : ['color-contrast'],
    )
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)}`))
  }

  /** What is wrong with what is on screen, in every theme and language. */
  async function faults({ who: { page }, name, again }: Scene): Promise<string[]> {
    const found: string[] = []
    for (const theme of THEMES) {
      await paint(page, theme)
      await settled(page)
      found.push(...(await flaws(page, theme === THEMES[0])).map((flaw) => `${name}, ${theme}: ${flaw}`))
    }
    for (const size of folder ? SIZES : [SMALLEST, USUAL]) {
      await page.setViewportSize(size)
      // The panel closes where there is no room for it beside the messages.
      await settled(page)
      await again?.()
      for (const language of LANGUAGES) {
        await speak(page, language)
        await settled(page)
        const where = `${name}-${language}-${size.width}`
        found.push(...(await page.evaluate(misfits)).map((flaw) => `${where}: ${flaw}`))
        if (folder) await photograph(page, join(folder, where))
      }
      await speak(page, 'en')
    }
    await page.setViewportSize(USUAL)
    await settled(page)
    await again?.()
    await paint(page, 'light')
    return found
  }

  async function photograph(page: Page, start: string): Promise<void> {
    for (const theme of THEMES) {
      await paint(page, theme)
      await settled(page)
      await page.screenshot({ path: `${start}-${theme}.png` })
    }
  }

  async function walk(scenes: readonly Scene[]): Promise<string[]> {
    const found: string[] = []
    for (const scene of scenes) {
      const { who, open, shown, close } = scene
      const dialog = who.page.getByRole('dialog').or(who.page.getByRole('alertdialog'))
      await open()
      await (shown ? shown() : dialog.last().waitFor())
      found.push(...(await faults(scene)))
      if (close) await close()
      else if (!shown) {
        // Behind a dialog there may be the one that opened it.
        await expect
          .poll(async () => {
            if ((await dialog.count()) > 0) await who.page.keyboard.press('Escape')
            return dialog.count()
          })
          .toBe(0)
      }
    }
    return found
  }

  async function registered(name: string): Promise<Person> {
    const person = await Person.arrive(browser, relay.origin, { viewport: USUAL })
    const { page } = person
    await page.goto(`${relay.origin}/auth?mode=register`)
    await page.getByLabel('Name', { exact: true }).fill(name)
    await page.getByLabel('Password', { exact: true }).fill('a-long-password')
    await page.getByLabel('Repeat password').fill('a-long-password')
    await page.locator('button[type=submit]').click()
    await page.waitForURL(/\/chat/)
    return person
  }

  it(
    'before the chat has no flaws and fits',
    async () => {
      const eve = await Person.arrive(browser, relay.origin, { viewport: USUAL })
      const at = (name: string, path: string): Scene => ({
        name,
        who: eve,
        open: () => eve.page.goto(relay.origin + path),
        shown: () => eve.page.locator('form').waitFor(),
      })
      const scenes = [at('landing', '/'), at('sign-in', '/auth'), at('register', '/auth?mode=register')]
      expect(await walk(scenes)).toEqual([])
      expect(eve.complaints).toEqual([])
      await eve.leave()
    },
    patienceMs,
  )

  it(
    'of the chat has no flaws and fits',
    async () => {
      const ada = await registered('Ada')
      const bob = await Person.guest(browser, relay.origin, 'Bob', { viewport: USUAL })
      const { page } = ada
      await ada.createRoom({ name: 'Stage crew', isPublic: true, encrypted: true })
      const link = await ada.inviteLink()
      await bob.follow(link, 'Stage crew')
      await ada.say('The new sound desk is **here**. Plan: https://example.org/plan', 'The new sound desk is here.')
      await bob.sees('The new sound desk')
      await bob.say('I wrote the routing down')
      await bob.page.locator('input[type=file]').setInputFiles(PICTURE)
      await bob.page.getByLabel('Image description').fill('The sign of the app')
      await bob.composer.press('Enter')
      await page.getByRole('img', { name: 'The sign of the app' }).waitFor()
      const second = await Person.guest(browser, relay.origin, 'Bob', { viewport: USUAL })
      await second.follow(link, 'Stage crew')
      await second.say('Another Bob')
      await ada.sees('Another Bob')
      const eve = await Person.guest(browser, relay.origin, 'Eve', { viewport: USUAL })

      const panel = (tab: 'Members' | 'Room' | 'Security'): Scene => ({
        name: `panel-${tab.toLowerCase()}`,
        who: ada,
        open: () => ada.openPanel(tab),
        shown: () => page.getByRole('tabpanel', { name: tab }).waitFor(),
        again: () => ada.openPanel(tab),
      })
      const dialog = (name: string, open: () => Promise<unknown>): Scene => ({ name, who: ada, open })
      const clicks = (name: string, button: string | RegExp): Scene =>
        dialog(name, () => ada.button(button).first().click())
      const scenes: Scene[] = [
        {
          name: 'empty',
          who: eve,
          open: async () => undefined,
          shown: () => eve.button('Browse rooms').last().waitFor(),
        },
        { name: 'join', who: eve, open: () => eve.page.goto(link) },
        { name: 'room', who: ada, open: async () => undefined, shown: () => ada.sees('Another Bob') },
        {
          name: 'tools',
          who: ada,
          open: () => ada.message('I wrote the routing').hover(),
          shown: () => ada.message('I wrote the routing').getByRole('button', { name: 'Message actions' }).waitFor(),
        },
        {
          name: 'menu',
          who: ada,
          open: () => ada.message('I wrote the routing').getByRole('button', { name: 'Message actions' }).click(),
          shown: () => page.getByRole('menu').waitFor(),
          close: () => page.keyboard.press('Escape'),
        },
        {
          name: 'emoji',
          who: ada,
          open: () => ada.button('Insert emoji').click(),
          shown: () => page.getByRole('group', { name: 'Emoji' }).getByRole('button').first().waitFor(),
          close: () => page.keyboard.press('Escape'),
        },
        panel('Members'),
        panel('Room'),
        panel('Security'),
        dialog('safety', async () => {
          await ada.openPanel('Security')
          await page.getByRole('tabpanel', { name: 'Security' }).getByRole('button', { name: /Bob/ }).first().click()
        }),
        dialog('kick', async () => {
          await ada.openPanel('Members')
          await ada.button('Actions for Bob').first().click()
          await page.getByRole('menuitem', { name: 'Remove from room' }).click()
        }),
        dialog('profile-other', async () => {
          await ada.openPanel('Members')
          await ada.button('Actions for Bob').first().click()
          await page.getByRole('menuitem', { name: 'Profile' }).click()
        }),
        dialog('report', () => ada.choose('I wrote the routing', 'Report')),
        dialog('delete', () => ada.choose('The new sound desk', 'Delete')),
        clicks('viewer', 'Open image: The sign of the app'),
        dialog('create', () => page.keyboard.press('Alt+n')),
        dialog('browse', () => page.keyboard.press('Alt+b')),
        dialog('group', async () => {
          await page.keyboard.press('Alt+b')
          await ada.button('New group').click()
          await ada.dialog('New group').waitFor()
        }),
        dialog('search', async () => {
          await page.keyboard.press('Control+Shift+f')
          await ada.dialog('Search messages').getByRole('searchbox').fill('the')
          await ada
            .dialog('Search messages')
            .getByText(/result/)
            .waitFor()
        }),
        clicks('shortcuts', 'Keyboard shortcuts'),
        clicks('settings', 'Settings'),
        dialog('recovery', async () => {
          await ada.button('Settings').click()
          await ada.button('Create a recovery phrase').click()
          await ada.dialog('Settings').getByRole('list', { name: 'Recovery phrase' }).waitFor()
        }),
        dialog('link', async () => {
          await ada.button('Settings').click()
          await ada.button('Link a new device').click()
          await page.getByRole('img', { name: 'QR code for linking a new device' }).scrollIntoViewIfNeeded()
        }),
        dialog('sign-out', async () => {
          await ada.button('Settings').click()
          await ada.button('Sign out').last().click()
          await page.getByRole('alertdialog').waitFor()
        }),
        clicks('profile', /Your profile and status/),
        clicks('invite', 'Invite people'),
        {
          name: 'toast',
          who: ada,
          open: async () => {
            await bob.act('Ada', 'Profile')
            await bob.dialog('Profile').getByLabel('Message to Ada').fill('May I ask you something?')
            await bob.button('Send message request').click()
          },
          shown: () => page.getByRole('button', { name: /^Accept: Bob wants/ }).waitFor(),
        },
        clicks('friends', 'Friends'),
      ]
      expect(await walk(scenes)).toEqual([])
      for (const person of [ada, bob, second, eve]) {
        expect(person.complaints).toEqual([])
        await person.leave()
      }
    },
    patienceMs,
  )
})
