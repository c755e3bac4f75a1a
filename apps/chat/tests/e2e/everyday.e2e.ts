import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

/** What happens every day and only shows in a browser: focus, reloads, lost networks, browsers that store nothing. */
describe('every day', () => {
  let browser: Browser
  let relay: Relay

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })

  const focusedBox = (person: Person, room: string): Promise<void> =>
    person.page.locator(`textarea[aria-label="Message to ${room}"]:focus`).waitFor()

  it('the composer has the focus after creating a room, after a reload, and after a change of rooms', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'First', isPublic: false })
    await focusedBox(ada, 'First')
    await ada.createRoom({ name: 'Second', isPublic: false })
    await focusedBox(ada, 'Second')
    await ada.openRoom('First')
    await focusedBox(ada, 'First')
    await ada.page.reload()
    await focusedBox(ada, 'First')
    await ada.leave()
  })

  it('a reload of any joined room opens that room, and asks nothing', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    for (const name of ['One', 'Two', 'Three']) await ada.createRoom({ name, isPublic: false })
    for (const name of ['One', 'Two', 'Three']) {
      await ada.openRoom(name)
      await ada.page.reload()
      await ada.isIn(name)
      await ada.page.waitForTimeout(500)
      expect(await ada.page.getByRole('dialog').count()).toBe(0)
    }
    await ada.leave()
  })

  it('Ctrl+K, a few letters and Enter open a room; the arrows walk through the list', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    for (const name of ['Apple', 'Banana', 'Cherry']) await ada.createRoom({ name, isPublic: false })
    await ada.page.keyboard.press('Control+k')
    await ada.page.keyboard.type('ban')
    await ada.page.keyboard.press('Enter')
    await focusedBox(ada, 'Banana')
    await ada.page.keyboard.press('Control+k')
    await ada.page.keyboard.press('ArrowDown')
    await ada.page.keyboard.press('ArrowDown')
    await ada.page.locator('[data-room]:focus', { hasText: 'Banana' }).waitFor()
    await ada.page.keyboard.press('ArrowUp')
    await ada.page.keyboard.press('Enter')
    await focusedBox(ada, 'Apple')
    await ada.leave()
  })

  it('the keyboard goes from a message to its toolbar and back', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Keys', isPublic: false })
    await ada.say('Press a key')
    await ada.page.keyboard.press('Alt+m')
    await ada.page.locator('article:focus').waitFor()
    await ada.page.keyboard.press('Tab')
    await ada.page.locator('article button:focus').waitFor()
    await ada.page.keyboard.press('Escape')
    await ada.page.locator('article:focus').waitFor()
    await ada.page.keyboard.press('Enter')
    await ada.page.getByRole('menuitem').first().waitFor()
    await ada.page.keyboard.press('Escape')
    await ada.page.getByRole('menuitem').first().waitFor({ state: 'detached' })
    await ada.page.waitForTimeout(200)
    expect(await ada.page.evaluate(() => document.activeElement?.closest('article') !== null)).toBe(true)
    await ada.leave()
  })

  it('an unfinished edit is still there after a change of rooms', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Other', isPublic: false })
    await ada.createRoom({ name: 'Draft', isPublic: false })
    await ada.say('Original')
    await ada.choose('Original', 'Edit')
    await ada.composer.fill('Half an edit')
    await ada.openRoom('Other')
    await ada.openRoom('Draft')
    await ada.page.getByText('Editing message').waitFor()
    expect(await ada.composer.inputValue()).toBe('Half an edit')
    await ada.page.reload()
    await ada.page.getByText('Editing message').waitFor()
    expect(await ada.composer.inputValue()).toBe('Half an edit')
    await ada.composer.press('Enter')
    await ada.sees('Half an edit')
    await ada.leave()
  })

  it('a lost network shows within three seconds, the own status too', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Train', isPublic: false })
    await ada
      .button(/Your profile and status/)
      .getByText('Online')
      .waitFor()
    // The relay stops answering without closing, as a tunnel does.
    relay.pause()
    await ada.page.evaluate(() => window.dispatchEvent(new Event('offline')))
    await ada.page
      .getByText(/No connection|Connecting/)
      .first()
      .waitFor({ timeout: 10_000 })
    await ada
      .button(/Your profile and status/)
      .getByText('Offline')
      .waitFor({ timeout: 10_000 })
    relay.resume()
    await ada.page
      .getByText(/No connection|Connecting/)
      .first()
      .waitFor({ state: 'detached', timeout: 40_000 })
    await ada.leave()
  })

  it('a browser that refuses to store anything says so and works', async () => {
    const ada = await Person.arrive(browser, relay.origin)
    await ada.context.addInitScript(() => {
      const refuse = (): never => {
        throw new DOMException('The operation is insecure.', 'SecurityError')
      }
      Object.defineProperty(window, 'localStorage', { get: refuse })
      indexedDB.open = refuse
    })
    await ada.page.goto(relay.origin)
    await ada.enterAs('Ada')
    await ada.page.getByText('This browser stores nothing for this page.').waitFor()
    await ada.createRoom({ name: 'Fleeting', isPublic: false })
    await ada.say('Written on water')
    await ada.isDelivered('Written on water')
    await ada.leave()
  })

  it('system lines are whole sentences with names, in German too', async () => {
    const eve = await Person.guest(browser, relay.origin, 'Eve')
    await eve.createRoom({ name: 'Lines', isPublic: false })
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.follow(await eve.inviteLink(), 'Lines')
    await eve.page.getByText('Bob joined.').waitFor()
    await eve.button('Settings').click()
    await eve.page.getByLabel('Language').selectOption('de')
    await eve.page.keyboard.press('Escape')
    await eve.page.getByText('Bob ist beigetreten.').waitFor()
    await eve.leave()
    await bob.leave()
  })
})
