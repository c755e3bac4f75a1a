import { mkdir, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath, URL } from 'node:url'
import type { AxeResults } from 'axe-core'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

const SCREENSHOTS = fileURLToPath(new URL('../../../../docs/screenshots', import.meta.url))
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }
const SMALLEST = { viewport: { width: 320, height: 568 }, isMobile: true, hasTouch: true }

/** Keeps a picture for the documentation, when asked for with `UPDATE_SCREENSHOTS=1`. */
async function picture(page: Page, name: string): Promise<void> {
  if (!process.env['UPDATE_SCREENSHOTS']) return
  await mkdir(SCREENSHOTS, { recursive: true })
  // Colours that are still changing are nobody's.
  await page.waitForTimeout(500)
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`) })
}

describe('every page', () => {
  let axe: string
  let browser: Browser
  let relay: Relay

  beforeAll(async () => {
    axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })

  /** What axe finds wrong on the page as it is now, in short. */
  async function flaws(page: Page): Promise<string[]> {
    await page.evaluate(axe)
    // Colours that are still changing are nobody's.
    await page.waitForTimeout(150)
    const { violations } = await page.evaluate(() => (window as unknown as { axe: { run(): AxeResults } }).axe.run())
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)}`))
  }

  async function lively(): Promise<[Person, Person]> {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Stage crew', isPublic: true, encrypted: true })
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.follow(await ada.inviteLink(), 'Stage crew')
    await ada.say('The new sound desk is **here**. Plan: https://example.org/plan', 'The new sound desk is here.')
    await bob.sees('The new sound desk')
    await bob.composer.fill('Great! I wrote the routing down:\n```\nosc/1 → clasp → dmx\n```')
    await bob.composer.press('Enter')
    await ada.sees('I wrote the routing down')
    await bob.choose('The new sound desk', 'Reply')
    await bob.composer.fill('@Ada shall we try it at eight?')
    await bob.composer.press('Enter')
    await ada.sees('shall we try it')
    await ada.say('Yes')
    await bob.sees('Yes')
    await ada.message('shall we try it').hover()
    await ada.message('shall we try it').getByRole('button', { name: 'Add a reaction' }).click()
    await ada.pickEmoji('thumbs up')
    await bob
      .message('shall we try it')
      .getByRole('button', { name: /👍\ufe0f?, \d/ })
      .waitFor()
    return [ada, bob]
  }

  it('shows a lively room to everybody in it', async () => {
    const eve = await Person.arrive(browser, relay.origin)
    await eve.page.goto(relay.origin)
    await eve.page.locator('form').waitFor()
    await picture(eve.page, 'landing')
    const [ada, bob] = await lively()
    await picture(ada.page, 'room')
    await ada.page.evaluate(() => (document.documentElement.dataset['theme'] = 'dark'))
    await picture(ada.page, 'room-dark')
    await ada.page.evaluate(() => delete document.documentElement.dataset['theme'])
    await ada.openPanel('Members')
    await picture(ada.page, 'panel')
    for (const [name, open] of [
      ['browse', () => ada.page.keyboard.press('Alt+b')],
      ['settings', () => ada.button('Settings').click()],
    ] as const) {
      await open()
      await ada.page.getByRole('dialog').waitFor()
      await ada.page.waitForTimeout(300)
      await picture(ada.page, name)
      await ada.page.keyboard.press('Escape')
      await ada.page.getByRole('dialog').waitFor({ state: 'detached' })
    }
    for (const person of [ada, bob, eve]) {
      expect(person.complaints).toEqual([])
      await person.leave()
    }
  })

  it('fits on a phone and on the smallest screen, without anything to scroll sideways', async () => {
    for (const [name, options] of [
      ['phone', PHONE],
      ['smallest', SMALLEST],
    ] as const) {
      const kim = await Person.guest(browser, relay.origin, 'Kim', options)
      await kim.button('New room').first().tap()
      await kim.dialog('New room').getByLabel('Name', { exact: true }).fill(`Pocket ${name}`)
      await kim.button('Create room').tap()
      await kim.isIn(`Pocket ${name}`)
      await kim.composer.fill('A message that is long enough to need more than one line on a small screen')
      await kim.button('Send').tap()
      await kim.sees('A message that is long')
      expect(await flaws(kim.page)).toEqual([])
      if (name === 'phone') await picture(kim.page, name)
      await kim.button('Show room details').tap()
      await kim.page.getByRole('complementary', { name: 'Room details' }).waitFor()
      await kim.page.getByRole('complementary').getByRole('button', { name: 'Hide room details' }).tap()
      await kim.button('Open room list').tap()
      await kim.roomLink(`Pocket ${name}`).waitFor()
      expect(await flaws(kim.page)).toEqual([])
      const overflow = await kim.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
      expect([name, overflow]).toEqual([name, 0])
      expect(kim.complaints).toEqual([])
      await kim.leave()
    }
  })

  it('can be walked with the keyboard alone', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    const { page } = ada
    await page.keyboard.press('Alt+n')
    await ada.dialog('New room').locator('input:focus').waitFor()
    await page.keyboard.type('Keys')
    await page.keyboard.press('Enter')
    await ada.isIn('Keys')
    await page.keyboard.press('Alt+c')
    await page.locator('textarea:focus').waitFor()
    await page.keyboard.type('One')
    await page.keyboard.press('Enter')
    await ada.sees('One')
    await page.keyboard.press('Alt+m')
    await page.locator('article:focus', { hasText: 'One' }).waitFor()
    await page.keyboard.press('r')
    await page.getByText('Replying to Ada').waitFor()
    await page.keyboard.press('Escape')
    await page.getByText('Replying to Ada').waitFor({ state: 'detached' })
    await page.keyboard.press('Alt+m')
    await page.locator('article:focus', { hasText: 'One' }).waitFor()
    await page.keyboard.press('?')
    await ada.dialog('Keyboard shortcuts').waitFor()
    await page.keyboard.press('Escape')
    await page.locator('article:focus', { hasText: 'One' }).waitFor()
    await ada.leave()
  })

  it('speaks German when asked to, and remembers that', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.button('Settings').click()
    await ada.page.getByLabel('Language').selectOption('de')
    await ada.dialog('Einstellungen').waitFor()
    await ada.page.reload()
    await ada.button('Neuer Raum').first().waitFor()
    expect(await ada.page.locator('html').getAttribute('lang')).toBe('de')
    await ada.leave()
  })
})
