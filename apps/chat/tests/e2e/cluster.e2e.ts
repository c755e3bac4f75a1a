import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { freePort } from '../support/ports'
import { Relay } from './relay'

/** The engine of a cluster: the program beside Python, where the relay's packages put it, or the machine's own. */
async function startEngine(folder: string): Promise<{ process: ChildProcess; url: string }> {
  const beside = join(dirname(process.env['PYTHON'] ?? ''), 'nats-server')
  const port = await freePort()
  const options = ['-a', '127.0.0.1', '-p', String(port), '-js', '-sd', folder]
  const child = spawn(existsSync(beside) ? beside : 'nats-server', options, { stdio: 'ignore' })
  return { process: child, url: `nats://127.0.0.1:${port}` }
}

describe('two relays of one cluster', () => {
  let browser: Browser
  let folder: string
  let engine: ChildProcess
  let relays: Relay[] = []
  let ada: Person
  let bob: Person

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'clasp-engine-'))
    const [started, launched] = await Promise.all([startEngine(folder), launch()])
    engine = started.process
    browser = launched
    for (const name of ['one', 'two']) relays.push(await Relay.start({ cluster: started.url, 'relay-name': name }))
  })
  afterAll(async () => {
    await browser.close()
    await Promise.all(relays.map((relay) => relay.stop()))
    relays = []
    engine.kill('SIGKILL')
    await once(engine, 'exit')
    await rm(folder, { recursive: true, force: true })
  })
  afterEach(async () => {
    expect([...ada.complaints, ...bob.complaints]).toEqual([])
    await ada.leave()
    await bob.leave()
  })

  it('are one chat for people at each of them, also when the one that decides is killed', async () => {
    const [one, two] = relays as [Relay, Relay]
    ada = await Person.guest(browser, one.origin, 'Ada')
    await ada.createRoom({ name: 'Garden', isPublic: false })
    const link = await ada.inviteLink()
    bob = await Person.arrive(browser, two.origin)
    await bob.page.goto(link.replace(one.origin, two.origin))
    await bob.enterAs('Bob')
    await bob.acceptInvitation()
    await bob.isIn('Garden')
    await ada.say('Hello from the first')
    await bob.sees('Hello from the first')
    await bob.say('Hello from the second')
    await ada.sees('Hello from the second')

    await one.kill()
    await bob.say('Are you there?')
    await one.run()
    await ada.sees('Are you there?')
    await ada.say('Back again')
    await bob.sees('Back again')
    await ada.isDelivered('Back again')
  })
})
