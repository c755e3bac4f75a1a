/** Calls between browsers with made-up cameras and microphones, which show and play something that changes. */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import type { AxeResults } from 'axe-core'
import type { Browser, BrowserContextOptions, Locator } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Coturn } from './coturn'
import { Original } from './original'
import { launch, Person } from './people'
import { Relay } from './relay'

const FLAGS = [
  // Few pictures: four browsers on a small machine encode and decode twelve videos.
  '--use-fake-device-for-media-stream=fps=5',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  // There is no resolver of `.local` names between browsers in a container.
  '--disable-features=WebRtcHideLocalIpsWithMdns',
]
const PATIENCE_MS = 60_000

/** Keeps the connections that a page makes, to ask them what they have received. */
function watchConnections(): void {
  const page = window as unknown as { connections: RTCPeerConnection[]; policy?: RTCIceTransportPolicy }
  page.connections = []
  const Original = window.RTCPeerConnection
  window.RTCPeerConnection = class extends Original {
    constructor(configuration: RTCConfiguration = {}) {
      super(page.policy ? { ...configuration, iceTransportPolicy: page.policy } : configuration)
      page.connections.push(this)
    }
  }
}

interface Received {
  /** The place of the connection among all that the page has made. */
  place: number
  frames: number
  energy: number
}

/** What every open connection of a page has received so far. */
async function received({ page }: Person): Promise<Received[]> {
  return page.evaluate(async () => {
    const { connections } = window as unknown as { connections: RTCPeerConnection[] }
    const open = [...connections.entries()].filter(([, { connectionState }]) => connectionState === 'connected')
    return Promise.all(
      open.map(async ([place, connection]) => {
        const totals = { place, frames: 0, energy: 0 }
        for (const report of (await connection.getStats()).values()) {
          if (report.type !== 'inbound-rtp') continue
          totals.frames += report.framesDecoded ?? 0
          totals.energy += report.totalAudioEnergy ?? 0
        }
        return totals
      }),
    )
  })
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + PATIENCE_MS
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 150))
  }
}

/** Waits until a page sees and hears so many others, more than it did before. */
async function seesAndHears(person: Person, others: number): Promise<void> {
  const before = await received(person)
  await until(`${others} others are seen and heard`, async () => {
    const lively = (await received(person)).filter(({ place, frames, energy }) => {
      const known = before.find((each) => each.place === place)
      return frames > (known?.frames ?? 0) && energy > (known?.energy ?? 0)
    })
    return lively.length === others
  })
}

/** By which kinds of candidates the open connections of a page send. */
const candidateTypes = ({ page }: Person): Promise<string[]> =>
  page.evaluate(async () => {
    const { connections } = window as unknown as { connections: RTCPeerConnection[] }
    const open = connections.filter(({ connectionState }) => connectionState === 'connected')
    const reports = await Promise.all(open.map((connection) => connection.getStats()))
    const candidates = reports
      .flatMap((report) => [...report.values()])
      .filter(({ type }) => type === 'local-candidate')
    return [...new Set(candidates.map(({ candidateType }) => String(candidateType)))]
  })

/** The name in the ICE credentials of the newest connection. */
const iceName = ({ page }: Person): Promise<string | undefined> =>
  page.evaluate(() => {
    const { connections } = window as unknown as { connections: RTCPeerConnection[] }
    return /a=ice-ufrag:(.+)/.exec(connections.at(-1)?.localDescription?.sdp ?? '')?.[1]
  })

/** How many connections of a page are open. */
const connected = ({ page }: Person): Promise<number> =>
  page.evaluate(
    () =>
      (window as unknown as { connections: RTCPeerConnection[] }).connections.filter(
        ({ connectionState }) => connectionState === 'connected',
      ).length,
  )

describe('a call', () => {
  let axe: string
  let browser: Browser
  let coturn: Coturn | null
  let relay: Relay
  const people: Person[] = []
  const originals: Original[] = []

  beforeAll(async () => {
    axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
    coturn = await Coturn.start()
    ;[browser, relay] = await Promise.all([launch(...FLAGS), Relay.start(coturn?.relayOptions)])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
    await coturn?.stop()
  })
  afterEach(async () => {
    const here = people.splice(0)
    expect(here.flatMap(({ complaints }) => complaints)).toEqual([])
    await Promise.all([...here, ...originals.splice(0)].map((person) => person.leave()))
  })

  async function arrive(name: string, link?: string, options: BrowserContextOptions = {}): Promise<Person> {
    const person = await Person.arrive(browser, relay.origin, options)
    people.push(person)
    person.page.setDefaultTimeout(PATIENCE_MS)
    await person.context.addInitScript(watchConnections)
    await person.page.goto(link ?? relay.origin)
    await person.enterAs(name)
    if (link === undefined) await person.createRoom({ name: 'Stage', isPublic: true })
    else {
      await person.acceptInvitation()
      await person.isIn('Stage')
    }
    return person
  }

  async function meet(...names: string[]): Promise<Person[]> {
    const first = await arrive(names[0] as string)
    const link = await first.inviteLink()
    return [first, ...(await Promise.all(names.slice(1).map((name) => arrive(name, link))))]
  }

  const controls = (person: Person): Locator => person.page.getByRole('toolbar', { name: 'Call controls' })

  async function joinCall(person: Person): Promise<void> {
    await person.page
      .locator('.header')
      .getByRole('button', { name: /^(Start a|Join the) call$/ })
      .click()
    await controls(person).waitFor()
  }

  async function turnOn(person: Person): Promise<void> {
    await person.button('Turn on the microphone').click()
    // Where the machine is busy Chromium gives up opening its test camera, and says so; people try again.
    const isOn = controls(person).getByRole('button', { name: 'Turn off the camera' })
    await until('the camera is on', async () => {
      await person.button('Turn on the camera').click()
      return isOn.waitFor({ timeout: 20_000 }).then(
        () => true,
        () => false,
      )
    })
  }

  /** An own tile and those of so many others. */
  const tiles = (person: Person): Locator => person.page.getByRole('region', { name: 'Call' }).getByRole('listitem')
  const hasTiles = (person: Person, count: number): Promise<void> =>
    until(`${count} tiles are shown`, async () => (await tiles(person).count()) === count)

  async function olga(person: Person, isRight: (own: string, theirs: string) => boolean): Promise<Original> {
    const roomId = new URL(person.page.url()).pathname.split('/').at(-1) as string
    const theirs = await callerOf(roomId)
    const original = await Original.arrive(browser, relay, roomId, (own) => isRight(own, theirs))
    originals.push(original)
    original.join()
    return original
  }

  /** The session id of the one who is in the call of a room. */
  async function callerOf(roomId: string): Promise<string> {
    const original = await Original.arrive(browser, relay, roomId, () => true)
    originals.push(original)
    return original.caller()
  }

  it('lets two see and hear each other, goes on in other rooms and after the network was gone, and ends at once', async () => {
    const [ada, bob] = (await meet('Ada', 'Bob')) as [Person, Person]
    await joinCall(ada)
    await bob.page.getByText('Ada is in a call.').waitFor()
    await joinCall(bob)
    await hasTiles(bob, 2)
    await turnOn(ada)
    await turnOn(bob)
    await Promise.all([seesAndHears(ada, 1), seesAndHears(bob, 1)])
    await tiles(bob)
      .filter({ hasText: 'Ada' })
      .getByText(/, speaking/)
      .waitFor()
    await ada.button('Mute the microphone').click()
    await tiles(bob)
      .filter({ hasText: 'Ada' })
      .getByText(/, muted/)
      .waitFor()
    await ada.button('Share your screen').click()
    await bob.page.getByLabel('Screen of Ada').waitFor()
    await ada.page.getByRole('status').filter({ hasText: 'You are sharing' }).getByRole('button').click()
    await bob.page.getByLabel('Video of Ada').waitFor()
    await ada.createRoom({ name: 'Elsewhere', isPublic: true })
    const bar = ada.page.getByRole('region', { name: 'Call in Stage' })
    await bar.getByRole('button', { name: 'Turn on the microphone' }).click()
    await Promise.all([seesAndHears(ada, 1), seesAndHears(bob, 1)])
    await ada.context.setOffline(true)
    await new Promise((resolve) => setTimeout(resolve, 5_000))
    await ada.context.setOffline(false)
    await Promise.all([seesAndHears(ada, 1), seesAndHears(bob, 1)])
    await hasTiles(bob, 2)
    await ada.page.close()
    await hasTiles(bob, 1)
    await bob.button('Leave the call').first().click()
    await controls(bob).waitFor({ state: 'detached' })
    expect(await connected(bob)).toBe(0)
  })

  it('lets four see and hear each other, and drops at once whoever is removed from the room', async () => {
    const all = (await meet('Ada', 'Bob', 'Cy', 'Dee')) as [Person, Person, Person, Person]
    const [ada, bob, cy, dee] = all
    for (const person of all) await joinCall(person)
    await Promise.all(all.map(turnOn))
    await Promise.all(all.map((person) => seesAndHears(person, 3)))
    const names = await tiles(ada).locator('.name').allInnerTexts()
    expect(names.map((name) => name.split(/[ ,]/)[0]?.trim()).sort()).toEqual(['Ada', 'Bob', 'Cy', 'Dee'])
    for (const person of all) await person.button('Turn off the camera').click()
    await ada.act('Bob', 'Ban')
    await ada.confirm('Ban')
    await controls(bob).waitFor({ state: 'detached' })
    await Promise.all([hasTiles(ada, 3), hasTiles(dee, 3)])
    await ada.act('Cy', 'Remove from room')
    await ada.confirm('Remove from room')
    await controls(cy).waitFor({ state: 'detached' })
    await Promise.all([hasTiles(ada, 2), hasTiles(dee, 2)])
    for (const [person, count] of [
      [ada, 1],
      [bob, 0],
      [cy, 0],
      [dee, 1],
    ] as const)
      expect([count, await connected(person)]).toEqual([count, count])
  }, 240_000)

  it.each([
    ['is called by the original', (own: string, theirs: string) => own > theirs],
    ['calls the original', (own: string, theirs: string) => own < theirs],
  ])('%s, and both see and hear what the other turns on later', async (_what, isRight) => {
    const [ada] = (await meet('Ada')) as [Person]
    await joinCall(ada)
    const original = await olga(ada, isRight)
    await hasTiles(ada, 2)
    await until('they are connected', async () => (await connected(ada)) === 1)
    await turnOn(ada)
    await until('the original sees and hears', () => original.seesAndHears())
    await original.turnOn()
    await seesAndHears(ada, 1)
    expect(original.faults).toEqual([])
    // Somebody who stays in the call when they are banned from the room.
    await original.enterRoom()
    await ada.act('Olga', 'Ban')
    await ada.confirm('Ban')
    await hasTiles(ada, 1)
    await until('the connection is closed', async () => (await connected(ada)) === 0)
  })

  it('goes through a TURN server alone, and survives its standing still', async ({ skip }) => {
    if (!coturn) return skip('no coturn: apt-get install coturn')
    const [ada, bob] = (await meet('Ada', 'Bob')) as [Person, Person]
    for (const person of [ada, bob]) {
      await person.page.evaluate(() => ((window as unknown as { policy: string }).policy = 'relay'))
      await joinCall(person)
      await turnOn(person)
    }
    await Promise.all([seesAndHears(ada, 1), seesAndHears(bob, 1)])
    expect(await candidateTypes(ada)).toEqual(['relay'])
    const before = await iceName(ada)
    coturn.pause()
    await tiles(ada)
      .getByText(/connection interrupted/)
      .waitFor()
    await until('new credentials are offered', async () => (await iceName(ada)) !== before)
    coturn.resume()
    await Promise.all([seesAndHears(ada, 1), seesAndHears(bob, 1)])
  })

  it('fits the smallest phone, and has no flaws that axe finds', async () => {
    const [ada] = (await meet('Ada')) as [Person]
    const phone = { viewport: { width: 320, height: 568 }, isMobile: true, hasTouch: true }
    const bob = await arrive('Bob', await ada.inviteLink(), phone)
    await joinCall(ada)
    await joinCall(bob)
    await turnOn(bob)
    await hasTiles(bob, 2)
    await bob.button('Microphone, camera and speaker').click()
    await bob.button('Show one person large').click()
    for (const { page } of [ada, bob]) {
      await page.evaluate(axe)
      const { violations } = await page.evaluate(() => (window as unknown as { axe: { run(): AxeResults } }).axe.run())
      expect(violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)}`))).toEqual(
        [],
      )
      expect(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)).toBeLessThanOrEqual(0)
    }
    await bob.page.getByLabel('Camera', { exact: true }).selectOption({ index: 1 })
    await bob.composer.waitFor()
  })
})
