/** Long absences, many rooms, many people, and a server that has another version by now. */
import { cp, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import 'fake-indexeddb/auto'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '@/protocol/clock'
import { makePerson, type Tester } from '../support/person'
import { connect, Crowd } from './crowd'
import { launch, Person } from './people'
import { Relay, APP } from './relay'

const MISSED = 500
const ROOMS = 100
const PRESENT = 250
const PATIENCE_MS = 60_000

describe('much of everything', () => {
  let browser: Browser
  let relay: Relay
  let app: string
  let count = 0

  beforeAll(async () => {
    app = await mkdtemp(join(tmpdir(), 'clasp-app-'))
    await cp(APP, app, { recursive: true })
    ;[browser, relay] = await Promise.all([launch(), Relay.start({ 'web-root': app })])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
    await rm(app, { recursive: true, force: true })
  })

  /** Somebody without a browser, who is faster. */
  async function machine(name: string): Promise<Tester> {
    const world = { clock: systemClock, connect, relayUrl: relay.socket, authBase: relay.origin, fetch }
    const tester = makePerson(world, name, `machine-${++count}`)
    await tester.session.continueAsGuest(name)
    await expect.poll(() => tester.connection.online, { timeout: PATIENCE_MS }).toBe(true)
    return tester
  }

  async function joined(tester: Tester, roomId: string): Promise<void> {
    await tester.rooms.join(roomId)
    await expect.poll(() => tester.rooms.byId[roomId]?.access, { timeout: PATIENCE_MS }).toBe('inside')
    tester.messages.timeline(roomId)
  }

  it('somebody who was away gets edits, deletes and five hundred messages, the newest at once', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Busy', isPublic: true })
    await ada.say('I am off')
    const roomId = new URL(ada.page.url()).pathname.split('/').at(-1)!
    const bob = await machine('Bob')
    await joined(bob, roomId)
    const said = async (text: string): Promise<string> => {
      await bob.messages.send(roomId, { text })
      const find = () => bob.messages.timeline(roomId).find((message) => message.text === text)
      await expect.poll(() => find()?.delivery, { timeout: PATIENCE_MS }).toBe('confirmed')
      return find()!.msgId
    }
    const [first, second] = [await said('will be edited'), await said('will be deleted')]
    await ada.sees('will be deleted')
    await ada.page.goto('about:blank')
    await bob.messages.edit(roomId, first, 'was edited')
    await bob.messages.remove(roomId, second)
    for (let number = 1; number <= MISSED; number += 1) await bob.messages.send(roomId, { text: `missed ${number}` })
    const waiting = () => bob.messages.timeline(roomId).filter(({ own, delivery }) => own && delivery !== 'confirmed')
    await expect.poll(() => waiting().length, { timeout: PATIENCE_MS }).toBe(0)
    await bob.runtime.end(false)
    await ada.page.goto(`${relay.origin}/chat/${roomId}`)
    await ada.sees(`missed ${MISSED}`)
    await ada.button('Search in this room').click()
    const search = ada.dialog('Search messages')
    for (const [query, found] of [
      ['missed 1', true],
      ['was edited', true],
      ['will be deleted', false],
    ] as const) {
      // It searches what is there when it is asked: the older pages may still be arriving.
      const hits = async (): Promise<string> => {
        await search.getByRole('searchbox').fill('')
        await search.getByRole('searchbox').fill(query)
        await ada.page.waitForTimeout(600)
        return (await search.textContent()) ?? ''
      }
      if (found) await expect.poll(hits, { timeout: PATIENCE_MS }).toContain(query)
      else expect(await hits()).toContain('No stored message')
    }
    expect(ada.complaints).toEqual([])
    await ada.leave()
  })

  it('somebody in a hundred rooms says something right after a reload', async () => {
    const maker = await machine('Maker')
    const ids: string[] = []
    for (let number = 0; number < ROOMS; number += 1)
      ids.push(await maker.rooms.create({ name: `Room ${number}`, isPublic: false, encrypted: false }))
    const last = ids.at(-1)!
    maker.messages.timeline(last)
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.page.evaluate((list) => localStorage.setItem('clasp-chat-joined', JSON.stringify(list)), ids)
    await ada.page.goto(`${relay.origin}/chat/${last}`)
    await ada.isIn(`Room ${ROOMS - 1}`)
    await ada.page.reload()
    await ada.isIn(`Room ${ROOMS - 1}`)
    await ada.composer.fill('Here I am')
    await ada.composer.press('Enter')
    const texts = () => maker.messages.timeline(last).map(({ text }) => text)
    await expect.poll(texts, { timeout: 20_000 }).toContain('Here I am')
    await ada.isDelivered('Here I am')
    expect(ada.complaints).toEqual([])
    await maker.runtime.end(false)
    await ada.leave()
  })

  it('a room with 250 people present renders those who are on screen, and stays quick', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Hall', isPublic: true })
    const roomId = new URL(ada.page.url()).pathname.split('/').at(-1)!
    const crowd = await Crowd.enter(relay, roomId, PRESENT)
    await ada.openPanel('Members')
    await ada.page.getByText('Guest 000').first().waitFor()
    const rows = await ada.page.getByRole('complementary').getByRole('listitem').count()
    expect(rows).toBeGreaterThan(5)
    expect(rows).toBeLessThan(80)
    // Heartbeats of everybody render nothing anew.
    await ada.page.evaluate(() => {
      const seen = { changes: 0 }
      const panel = document.querySelector('[role=complementary], aside') as Element
      new MutationObserver((list) => (seen.changes += list.length)).observe(panel, { subtree: true, childList: true })
      Object.assign(window, { seen })
    })
    for (let round = 0; round < 3; round += 1) await crowd.beat()
    await ada.say('Can you hear me?')
    const changes = await ada.page.evaluate(() => (window as unknown as { seen: { changes: number } }).seen.changes)
    expect(changes).toBeLessThan(20)
    crowd.leave()
    await ada.leave()
  })

  it('a page that is older than the server asks to be loaded again, and keeps the draft', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Old', isPublic: true })
    await ada.page.evaluate(async () => {
      for (const worker of await navigator.serviceWorker.getRegistrations()) await worker.unregister()
      for (const name of await caches.keys()) await caches.delete(name)
    })
    // A service worker would have the whole version in its cache, so that nothing is missing.
    await ada.page.addInitScript(() => {
      navigator.serviceWorker.register = () => Promise.reject(new Error('no service worker in this test'))
    })
    await ada.page.reload()
    await ada.isIn('Old')
    await ada.composer.fill('half a thought')
    // What is loaded on demand has other names now.
    const assets = join(app, 'assets')
    for (const name of await readdir(assets)) if (/^BrowseDialog/.test(name)) await rm(join(assets, name))
    await ada.page.route('**/assets/BrowseDialog*', (route) => route.fulfill({ status: 404 }))
    await ada.page.keyboard.press('Alt+b')
    await ada.page.getByText('There is a new version of the chat.').waitFor()
    await ada.page.unroute('**/assets/BrowseDialog*')
    await ada.button('Reload').click()
    await ada.isIn('Old')
    await expect.poll(() => ada.composer.inputValue()).toBe('half a thought')
    await ada.leave()
  })
})
