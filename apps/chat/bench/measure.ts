/**
 * Measures what users notice: how a room with 10,000 messages scrolls, the latency of a message from the key press to the
 * other screen, what a room with many people costs, how long a search takes, and how soon one is there after an absence.
 * Run with `npm run bench`, or with names (`npm run bench -- crowds searches`); prints JSON.
 */
import 'fake-indexeddb/auto'
import type { Browser } from 'playwright-core'
import { createServer } from 'vite'
import { systemClock } from '@/protocol/clock'
import { connect, Crowd } from '../tests/e2e/crowd'
import { launch, Person } from '../tests/e2e/people'
import { Relay } from '../tests/e2e/relay'
import { makePerson } from '../tests/support/person'
import { fileURLToPath, URL } from 'node:url'

const MESSAGES = 10_000
const SCROLL_MS = 5_000
const SENT = 100
const CROWDS = [0, 250, 1_000]
const CROWD_MS = 30_000
const STORED = 20_000
/** What the dialog waits for after a key, ms. */
const SEARCH_PAUSE_MS = 200
const MISSED = 1_000

const share = (sorted: readonly number[], part: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
const rounded = (value: number): number => Math.round(value * 10) / 10

function summary(values: number[]): { median: number; p95: number; p99: number; max: number } {
  const sorted = [...values].sort((one, other) => one - other)
  return {
    median: rounded(share(sorted, 0.5)),
    p95: rounded(share(sorted, 0.95)),
    p99: rounded(share(sorted, 0.99)),
    max: rounded(sorted.at(-1) ?? 0),
  }
}

/** The interface without a relay, scrolled from the end upwards at a constant speed. */
async function scrolling(): Promise<object> {
  const server = await createServer({
    configFile: fileURLToPath(new URL('../tests/demo/vite.config.ts', import.meta.url)),
    server: { port: 0 },
    mode: 'production',
    logLevel: 'error',
  })
  await server.listen()
  const browser = await launch()
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
    await page.goto(`${server.resolvedUrls?.local[0]}chat/r1?messages=${MESSAGES}`)
    const log = page.getByRole('log')
    await log.waitFor()
    await page.waitForTimeout(3000)
    const gaps = await log.evaluate(async (element, duration) => {
      const found: number[] = []
      const start = performance.now()
      let last = start
      await new Promise<void>((resolve) => {
        const step = (now: number): void => {
          found.push(now - last)
          last = now
          element.scrollTop -= 60
          if (now - start < duration) requestAnimationFrame(step)
          else resolve()
        }
        requestAnimationFrame(step)
      })
      return found.slice(1)
    }, SCROLL_MS)
    const nodes = await page.evaluate(() => document.querySelectorAll('*').length)
    return {
      messages: MESSAGES,
      framesPerSecond: rounded((gaps.length * 1000) / SCROLL_MS),
      gapMs: summary(gaps),
      nodes,
    }
  } finally {
    await browser.close()
    await server.close()
  }
}

/** Two browsers and a relay on one machine, so that all times are from the same clock. */
async function delivery(): Promise<object> {
  const [browser, relay] = await Promise.all([launch(), Relay.start()])
  try {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Track', isPublic: false })
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.follow(await ada.inviteLink(), 'Track')
    await bob.page.waitForTimeout(2000)
    await bob.page.evaluate(() => {
      const seen: Record<string, number> = {}
      Object.assign(window, { seen })
      const look = (): void => {
        for (const text of document.querySelectorAll('article .text')) seen[text.textContent ?? ''] ??= Date.now()
      }
      new MutationObserver(look).observe(document.body, { childList: true, subtree: true, characterData: true })
    })
    await ada.page.evaluate(() => {
      const sent: Record<string, number> = {}
      Object.assign(window, { sent })
      const note = (event: KeyboardEvent): void => {
        if (event.key === 'Enter') sent[(event.target as HTMLTextAreaElement).value] = Date.now()
      }
      window.addEventListener('keydown', note, { capture: true })
    })
    for (let n = 0; n < SENT; n += 1) {
      await ada.composer.fill(`lap ${n}`)
      await ada.composer.press('Enter')
      await ada.page.waitForTimeout(100)
    }
    await bob.page.waitForTimeout(1500)
    const sent = await ada.page.evaluate(() => (window as unknown as { sent: Record<string, number> }).sent)
    const seen = await bob.page.evaluate(() => (window as unknown as { seen: Record<string, number> }).seen)
    const took = Object.entries(sent).flatMap(([text, at]) => (seen[text] ? [seen[text] - at] : []))
    return { sent: SENT, arrived: took.length, ms: summary(took) }
  } finally {
    await browser.close()
    await relay.stop()
  }
}

/** CPU seconds of all of Chromium's processes so far, by their type. */
async function cpuOf(browser: Browser): Promise<Record<string, number>> {
  const session = await browser.newBrowserCDPSession()
  const { processInfo } = await session.send('SystemInfo.getProcessInfo')
  await session.detach()
  const sums: Record<string, number> = {}
  for (const { type, cpuTime } of processInfo) sums[type] = (sums[type] ?? 0) + cpuTime
  return sums
}

/** What it costs to look at a room, by the number of those present: parts of a core, with their list open. */
async function crowds(): Promise<object> {
  const [browser, relay] = await Promise.all([launch(), Relay.start()])
  try {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    const found: object[] = []
    for (const size of CROWDS) {
      await ada.createRoom({ name: `Hall ${size}`, isPublic: true })
      const crowd = await Crowd.enter(relay, roomOf(ada), size)
      await ada.openPanel('Members')
      await ada.page.getByText(`${size + 1} online`).waitFor()
      crowd.live()
      await ada.page.waitForTimeout(CROWD_MS / 2)
      const before = await cpuOf(browser)
      const start = performance.now()
      await ada.page.waitForTimeout(CROWD_MS)
      const after = await cpuOf(browser)
      const seconds = (performance.now() - start) / 1000
      const used = (type: string): number => rounded((100 * ((after[type] ?? 0) - (before[type] ?? 0))) / seconds)
      const rows = await ada.page.getByRole('complementary').getByRole('listitem').count()
      found.push({ present: size, pagePercent: used('renderer'), browserPercent: used('browser'), rows })
      crowd.leave()
    }
    return found
  } finally {
    await browser.close()
    await relay.stop()
  }
}

const roomOf = (person: Person): string => new URL(person.page.url()).pathname.split('/').at(-1) ?? ''

const WORDS = 'stage light sound cable fog desk cue scene rehearsal van plan door key late early tram song bass'.split(
  ' ',
)

/** From the last key to the results, in a browser that has kept many messages. */
async function searches(): Promise<object> {
  const [browser, relay] = await Promise.all([launch(), Relay.start()])
  try {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Archive', isPublic: true })
    const roomId = roomOf(ada)
    const text = (number: number): string =>
      Array.from({ length: 12 }, (_, at) => WORDS[(number * (at + 3) + at * at) % WORDS.length]).join(' ')
    const messages = Array.from({ length: STORED }, (_, number) => {
      const head = {
        from: 'Olga',
        fromId: 's',
        userId: 'olga',
        msgId: `m-${number}`,
        timestamp: 1.7e12 + number * 1000,
      }
      const data = { ...head, text: `${text(number)} number ${number}`, type: 'text', avatarColor: '#336699' }
      return { roomId, msgId: head.msgId, timestamp: head.timestamp, data }
    })
    const buffer = Buffer.from(JSON.stringify({ messages, joined: [{ id: roomId, peerName: '' }] }))
    await ada.button('Settings').click()
    const input = ada.dialog('Settings').locator('input[type=file]')
    await input.setInputFiles({ name: 'export.json', mimeType: 'application/json', buffer })
    await ada.page
      .getByText(/20000 messages/)
      .first()
      .waitFor({ timeout: 180_000 })
    await ada.page.reload()
    await ada.isIn('Archive')
    const queries = ['number 12345', 'fog', 'stage light', 'nowhere', 'song 777', 'tram late door', 'number', 'e']
    await ada.button('Search in this room').click()
    const took = { first: 0, next: [] as number[] }
    for (const [place, query] of queries.entries()) {
      const ms = await ada.page.evaluate(
        async ({ query: wanted }) => {
          const field = document.querySelector('[role=dialog] input[type=search]') as HTMLInputElement
          field.value = ''
          field.dispatchEvent(new Event('input'))
          while (document.querySelector('[role=dialog] [role=status]'))
            await new Promise((resolve) => setTimeout(resolve, 20))
          const start = performance.now()
          field.value = wanted
          field.dispatchEvent(new Event('input'))
          while (!document.querySelector('[role=dialog] [role=status]'))
            await new Promise((resolve) => setTimeout(resolve, 1))
          await new Promise((resolve) => requestAnimationFrame(resolve))
          return performance.now() - start
        },
        { query },
      )
      if (place === 0) took.first = rounded(ms - SEARCH_PAUSE_MS)
      else took.next.push(ms - SEARCH_PAUSE_MS)
    }
    return { messages: STORED, firstMs: took.first, nextMs: summary(took.next) }
  } finally {
    await browser.close()
    await relay.stop()
  }
}

/** From the room on screen to the newest of many missed messages, and what opening the page took before. */
async function returning(): Promise<object> {
  const [browser, relay] = await Promise.all([launch(), Relay.start()])
  try {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Busy', isPublic: true })
    await ada.say('I am off')
    const roomId = roomOf(ada)
    const world = { clock: systemClock, connect, relayUrl: relay.socket, authBase: relay.origin, fetch }
    const bob = makePerson(world, 'Bob', 'bob')
    await bob.session.continueAsGuest('Bob')
    const until = async (holds: () => boolean): Promise<void> => {
      while (!holds()) await new Promise((resolve) => setTimeout(resolve, 50))
    }
    await until(() => bob.connection.online)
    await bob.rooms.join(roomId)
    await until(() => bob.rooms.byId[roomId]?.access === 'inside')
    await ada.page.goto('about:blank')
    bob.messages.timeline(roomId)
    for (let number = 1; number <= MISSED; number += 1) await bob.messages.send(roomId, { text: `missed ${number}` })
    await until(() => bob.messages.timeline(roomId).every(({ own, delivery }) => !own || delivery === 'confirmed'))
    await bob.runtime.end(false)
    await ada.context.addInitScript((newest) => {
      const times: Record<string, number> = {}
      Object.assign(window, { times })
      const look = setInterval(() => {
        if (document.querySelector('section.room')) times['room'] ??= performance.now()
        const last = [...document.querySelectorAll('article .text')].some((text) => text.textContent === newest)
        if (last) times['newest'] ??= performance.now()
        if (last) clearInterval(look)
      }, 5)
    }, `missed ${MISSED}`)
    await ada.page.goto(`${relay.origin}/chat/${roomId}`)
    await ada.sees(new RegExp(`missed ${MISSED}$`))
    const { room = 0, newest = 0 } = await ada.page.evaluate(
      () => (window as unknown as { times: Record<string, number> }).times,
    )
    return { missed: MISSED, pageMs: rounded(room), newestMs: rounded(newest - room) }
  } finally {
    await browser.close()
    await relay.stop()
  }
}

const parts = { scrolling, delivery, crowds, searches, returning }
const wanted = process.argv.slice(2)
const result: Record<string, object> = {}
for (const [name, measure] of Object.entries(parts))
  if (wanted.length === 0 || wanted.includes(name)) result[name] = await measure()
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`)
