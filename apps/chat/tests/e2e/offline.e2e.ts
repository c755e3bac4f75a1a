import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

describe('without a connection', () => {
  let browser: Browser
  let relay: Relay

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })

  it('queues what is written while the relay is down and delivers it when it is back', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Harbour', isPublic: false })
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.follow(await ada.inviteLink(), 'Harbour')
    await ada.say('Before the storm')
    await bob.sees('Before the storm')
    await ada.isDelivered('Before the storm')
    // The relay writes its state every second.
    await ada.page.waitForTimeout(2000)
    await relay.kill()
    await ada.say('During the storm')
    await ada.message('During the storm').getByRole('img', { name: 'Waiting for a connection' }).waitFor()
    await ada.page
      .getByText(/No connection|Connecting/)
      .first()
      .waitFor()
    await relay.run()
    for (const person of [ada, bob])
      await person.page
        .getByText(/No connection|Connecting/)
        .first()
        .waitFor({ state: 'detached', timeout: 40_000 })
    await ada.isDelivered('During the storm')
    await bob.sees('During the storm')
    await bob.say('After the storm')
    await ada.sees('After the storm')
    await ada.leave()
    await bob.leave()
  })

  it('opens with the stored history when nothing answers at all', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Attic', isPublic: false })
    await ada.say('Kept in the attic')
    await ada.isDelivered('Kept in the attic')
    await ada.page.evaluate(async () => {
      await navigator.serviceWorker.ready
      while (!navigator.serviceWorker.controller) await new Promise((resolve) => setTimeout(resolve, 50))
    })
    await relay.kill()
    await ada.page.reload()
    await ada.isIn('Attic')
    await ada.sees('Kept in the attic')
    await ada.page
      .getByText(/No connection|Connecting/)
      .first()
      .waitFor()
    await ada.leave()
    await relay.run()
  })
})
