/** Calls between browsers with made-up cameras and microphones, which show and play something that changes. */
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

const FLAGS = [
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  // There is no resolver of `.local` names between browsers in a container.
  '--disable-features=WebRtcHideLocalIpsWithMdns',
]
const PATIENCE_MS = 20_000

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
  frames: number
  energy: number
}

/** What every open connection of a page has received so far. */
async function received({ page }: Person): Promise<Received[]> {
  return page.evaluate(async () => {
    const { connections } = window as unknown as { connections: RTCPeerConnection[] }
    const open = connections.filter(({ connectionState }) => connectionState === 'connected')
    return Promise.all(
      open.map(async (connection) => {
        const totals = { frames: 0, energy: 0 }
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
  const most = (of: keyof Received): number => Math.max(0, ...before.map((each) => each[of]))
  await until(`${others} others are seen and heard`, async () => {
    const now = await received(person)
    const lively = now.filter(({ frames, energy }) => frames > most('frames') && energy > most('energy'))
    return lively.length === others
  })
}

describe('a call', () => {
  let browser: Browser
  let relay: Relay
  const people: Person[] = []

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(...FLAGS), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })
  afterEach(async () => {
    const here = people.splice(0)
    expect(here.flatMap(({ complaints }) => complaints)).toEqual([])
    await Promise.all(here.map((person) => person.leave()))
  })

  async function arrive(name: string, link?: string, room = 'Stage'): Promise<Person> {
    const person = await Person.arrive(browser, relay.origin)
    people.push(person)
    await person.context.addInitScript(watchConnections)
    await person.page.goto(link ?? relay.origin)
    await person.enterAs(name)
    if (link === undefined) await person.createRoom({ name: room, isPublic: true })
    else {
      await person.acceptInvitation()
      await person.isIn(room)
    }
    return person
  }

  async function meet(...names: string[]): Promise<Person[]> {
    const first = await arrive(names[0] as string)
    const link = await first.inviteLink()
    return [first, ...(await Promise.all(names.slice(1).map((name) => arrive(name, link))))]
  }

  async function joinCall(person: Person, first = false): Promise<void> {
    const header = person.page.locator('.header')
    await header.getByRole('button', { name: first ? 'Start a call' : 'Join the call' }).click()
    await person.page.getByRole('toolbar', { name: 'Call controls' }).waitFor()
  }

  async function turnOn(person: Person): Promise<void> {
    await person.button('Turn on the microphone').click()
    await person.button('Turn on the camera').click()
  }

  it('lets two see and hear each other, who joined silent', async () => {
    const [ada, bob] = (await meet('Ada', 'Bob')) as [Person, Person]
    await joinCall(ada, true)
    await bob.page.getByText('Ada is in a call.').waitFor()
    await joinCall(bob)
    await turnOn(ada)
    await turnOn(bob)
    await Promise.all([seesAndHears(ada, 1), seesAndHears(bob, 1)])
  })
})
