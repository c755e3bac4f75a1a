/**
 * Measures what users notice: how a room with 10,000 messages scrolls, and the latency of a message from the key press
 * to the other screen. Run with `npm run bench`; prints JSON.
 */
import { createServer } from 'vite'
import { launch, Person } from '../tests/e2e/people'
import { Relay } from '../tests/e2e/relay'
import { fileURLToPath, URL } from 'node:url'

const MESSAGES = 10_000
const SCROLL_MS = 5_000
const SENT = 100

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

const result = { scrolling: await scrolling(), delivery: await delivery() }
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`)
