import type { Browser, CDPSession, Worker } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

interface Shown {
  title: string
  body: string
  tag: string
}

/** What runs in the service worker. */
interface WorkerScope {
  registration: ServiceWorkerRegistration
  dispatchEvent: (event: Event) => boolean
  NotificationEvent: new (type: string, init: { notification: Notification }) => Event
}

describe('push messages', () => {
  let browser: Browser
  let relay: Relay

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })

  /** The registration of the service worker, by which Chromium delivers messages. */
  async function registrationOf(cdp: CDPSession): Promise<string> {
    const found = new Promise<string>((resolve) =>
      cdp.on('ServiceWorker.workerRegistrationUpdated', ({ registrations }) => {
        const [registration] = registrations
        if (registration) resolve(registration.registrationId)
      }),
    )
    await cdp.send('ServiceWorker.enable')
    return found
  }

  const notifications = (worker: Worker): Promise<Shown[]> =>
    worker.evaluate(async () => {
      const { registration } = globalThis as unknown as WorkerScope
      return (await registration.getNotifications()).map(({ title, body, tag }) => ({ title, body, tag }))
    })

  it('show a notification while no page is on screen, which opens the room', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.context.grantPermissions(['notifications'], { origin: relay.origin })
    await ada.createRoom({ name: 'Lighthouse', isPublic: false })
    const roomId = new URL(ada.page.url()).pathname.split('/').pop() ?? ''
    await ada.createRoom({ name: 'Harbour', isPublic: false })
    await ada.page.evaluate(
      async (names) => {
        await navigator.serviceWorker.ready
        while (!navigator.serviceWorker.controller) await new Promise((resolve) => setTimeout(resolve, 50))
        const words = { titles: { mention: 'You were mentioned' }, rooms: names, muted: [] }
        await (await caches.open('clasp-push')).put('/push-words.json', Response.json(words))
      },
      { [roomId]: 'Lighthouse' },
    )
    const [worker] = ada.context.serviceWorkers()
    if (!worker) throw new Error('no service worker')
    const cdp = await ada.context.newCDPSession(ada.page)
    const registrationId = await registrationOf(cdp)
    const deliver = (data: string): Promise<unknown> =>
      cdp.send('ServiceWorker.deliverPushMessage', { origin: relay.origin, registrationId, data })

    // The page is on screen: it tells of it itself.
    await deliver(JSON.stringify({ room: roomId, kind: 'mention' }))
    await ada.page.waitForTimeout(500)
    expect(await notifications(worker)).toEqual([])

    await ada.page.goto('about:blank')
    // The browser may take a moment to tell the worker that the page is gone; a later notice of the room replaces this one.
    await expect
      .poll(
        async () => {
          await deliver(JSON.stringify({ room: roomId, kind: 'mention' }))
          return notifications(worker)
        },
        { timeout: 60_000 },
      )
      .toEqual([{ title: 'You were mentioned', body: 'Lighthouse', tag: roomId }])
    // What is not the relay's is shown without words: Chromium takes the right away from a page that shows nothing.
    await deliver('nonsense')
    await expect.poll(async () => (await notifications(worker)).map(({ title }) => title)).toContain('CLASP Chat')

    await ada.page.goto(`${relay.origin}/chat`)
    await ada.page.getByRole('link', { name: /Harbour/ }).click()
    await worker.evaluate(async (tag) => {
      const scope = globalThis as unknown as WorkerScope
      const [notification] = await scope.registration.getNotifications({ tag })
      if (notification) scope.dispatchEvent(new scope.NotificationEvent('notificationclick', { notification }))
    }, roomId)
    await ada.isIn('Lighthouse')
    expect((await notifications(worker)).map(({ tag }) => tag)).not.toContain(roomId)
    await ada.leave()
  })
})
