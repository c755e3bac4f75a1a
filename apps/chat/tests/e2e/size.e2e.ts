import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

/** What opening the chat may cost, in bytes of JavaScript as they go over the line. */
const BUDGET_BYTES = 200_000

describe('the first load', () => {
  let browser: Browser
  let relay: Relay

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })

  it('of a room takes at most 200 kB of packed JavaScript, all of it from the same origin', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Light', isPublic: false })
    const visitor = await ada.context.newPage()
    // A worker's store would hide what comes over the line.
    await visitor.route('**/sw.js', (route) => route.abort())
    await ada.page.evaluate(async () => {
      for (const worker of await navigator.serviceWorker.getRegistrations()) await worker.unregister()
    })
    await visitor.goto(ada.page.url())
    await visitor.getByRole('textbox', { name: 'Message to Light' }).waitFor()
    const loaded = await visitor.evaluate(() =>
      (performance.getEntriesByType('resource') as PerformanceResourceTiming[]).map(
        ({ name, encodedBodySize }) => [name, encodedBodySize] as const,
      ),
    )
    const scripts = loaded.filter(([name]) => name.endsWith('.js'))
    const total = scripts.reduce((sum, [, size]) => sum + size, 0)
    process.stdout.write(`first load: ${scripts.length} scripts, ${total} bytes packed\n`)
    expect(total).toBeGreaterThan(50_000)
    expect(total).toBeLessThanOrEqual(BUDGET_BYTES)
    expect(loaded.filter(([name]) => !name.startsWith(relay.origin))).toEqual([])
    await ada.leave()
  })
})
