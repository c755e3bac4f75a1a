import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

const MIB = 1024 * 1024

/** Files and voice messages, as they go through a real browser and a real relay. */
describe('files', () => {
  let browser: Browser
  let relay: Relay
  let folder: string

  beforeAll(async () => {
    ;[browser, relay, folder] = await Promise.all([
      launch('--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream'),
      Relay.start(),
      mkdtemp(join(tmpdir(), 'clasp-files-')),
    ])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
    await rm(folder, { recursive: true })
  })

  const attach = (person: Person, name: string, mimeType: string, buffer: Buffer): Promise<void> =>
    person.page.locator('input[type=file]').setInputFiles({ name, mimeType, buffer })

  async function downloaded(person: Person, name: string): Promise<Buffer> {
    const [download] = await Promise.all([
      person.page.waitForEvent('download'),
      person.button(`Download ${name}`).click(),
    ])
    expect(download.suggestedFilename()).toBe(name)
    return readFile(await download.path())
  }

  it('the largest file goes up and down unchanged, and the relay cannot read an encrypted one', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await ada.createRoom({ name: 'Open' })
    await bob.follow(await ada.inviteLink(), 'Open')
    const data = randomBytes(25 * MIB)
    const path = join(folder, 'big.bin')
    await writeFile(path, data)
    await ada.page.locator('input[type=file]').setInputFiles(path)
    await ada.composer.press('Enter')
    await bob.sees('big.bin')
    expect((await downloaded(bob, 'big.bin')).equals(data)).toBe(true)
    expect((await relay.files()).some((each) => each.equals(data))).toBe(true)
    await ada.choose('big.bin', 'Delete')
    await ada.confirm('Delete')
    await ada.message('big.bin').waitFor({ state: 'detached' })

    await ada.createRoom({ name: 'Closed', isPublic: false, encrypted: true })
    const link = await ada.inviteLink()
    await bob.follow(link, 'Closed')
    const secret = Buffer.from('the plan is secret '.repeat(1000))
    await attach(ada, 'plan.txt', 'text/plain', secret)
    await ada.say('look at this')
    await bob.sees('plan.txt')
    expect((await downloaded(bob, 'plan.txt')).equals(secret)).toBe(true)
    const kept = await relay.files()
    expect(kept).toHaveLength(1)
    expect(kept[0]!.includes('secret')).toBe(false)
    expect([...ada.complaints, ...bob.complaints]).toEqual([])
    await Promise.all([ada.leave(), bob.leave()])
  })

  it('a file whose connection is cut arrives when it is back, once', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Cut', isPublic: false })
    await attach(ada, 'first.bin', 'application/octet-stream', randomBytes(10))
    await ada.composer.press('Enter')
    await ada.sees('first.bin')
    const before = (await relay.files()).length
    const wire = await ada.context.newCDPSession(ada.page)
    const slow = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: MIB / 2 }
    await wire.send('Network.enable')
    await wire.send('Network.emulateNetworkConditions', slow)
    const data = randomBytes(4 * MIB)
    await attach(ada, 'cut.bin', 'application/octet-stream', data)
    await ada.composer.press('Enter')
    const progress = ada.page.getByRole('progressbar', { name: 'Sending cut.bin' })
    await expect
      .poll(() => progress.evaluate((bar: HTMLProgressElement) => bar.value), { timeout: 60_000 })
      .toBeGreaterThan(MIB / 2)
    await relay.kill()
    expect(await relay.files()).toHaveLength(before + 1) // half of it
    await ada.page.getByText('cut.bin is waiting for a connection').waitFor()
    await wire.send('Network.emulateNetworkConditions', { ...slow, uploadThroughput: -1 })
    await relay.run()
    expect(await relay.files()).toHaveLength(before)
    await ada.sees('cut.bin')
    expect(await relay.files()).toHaveLength(before + 1)
    expect((await downloaded(ada, 'cut.bin')).equals(data)).toBe(true)
    expect(await ada.message('cut.bin').count()).toBe(1)
    await ada.leave()
  })

  it('a picture is scaled, shown at once, and whole in the viewer', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Pictures', isPublic: false })
    const base64 = await ada.page.evaluate(async () => {
      const canvas = new OffscreenCanvas(3200, 1600)
      const context = canvas.getContext('2d')!
      for (let at = 0; at < 3200; at += 40) {
        context.fillStyle = `hsl(${at}, 80%, 50%)`
        context.fillRect(at, 0, 40, 1600)
      }
      const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: 'image/jpeg' })).arrayBuffer())
      return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))
    })
    await attach(ada, 'rainbow.jpg', 'image/jpeg', Buffer.from(base64, 'base64'))
    await ada.page.getByLabel('Description').fill('A rainbow')
    await ada.composer.press('Enter')
    const preview = ada.page.getByRole('article').getByRole('img', { name: 'A rainbow' })
    await preview.waitFor()
    expect((await preview.getAttribute('src'))!.length).toBeLessThanOrEqual(40_000)
    await ada.button('Open image: A rainbow').click()
    const whole = ada.page.locator('[role=dialog] img[src^="blob:"]')
    await whole.waitFor()
    await expect.poll(() => whole.evaluate((image: HTMLImageElement) => image.naturalWidth)).toBe(1600)
    expect(ada.complaints).toEqual([])
    await ada.leave()
  })

  it('a voice message is recorded by holding or by the keyboard, and can be heard', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada', { permissions: ['microphone'] })
    await ada.createRoom({ name: 'Voices', isPublic: false, encrypted: true })
    const record = ada.button(/Record a voice message/)
    await record.hover()
    await ada.page.mouse.down()
    await ada.page.getByRole('timer').waitFor()
    await ada.page.waitForTimeout(2_000)
    await ada.page.mouse.up()
    const voices = ada.page.getByRole('group', { name: /^Voice message/ })
    await voices.first().waitFor()

    await record.focus()
    await ada.page.keyboard.press('Enter')
    await ada.page.getByRole('timer').waitFor()
    await ada.page.waitForTimeout(1_500)
    await ada.page.keyboard.press('Enter')
    await expect.poll(() => voices.count()).toBe(2)

    await voices.first().getByRole('button', { name: 'Play' }).click()
    const played = (): Promise<number> =>
      voices
        .first()
        .locator('audio')
        .evaluate((audio: HTMLAudioElement) => audio.currentTime)
    await expect.poll(played, { timeout: 60_000 }).toBeGreaterThan(0.2)
    // The fake microphone beeps.
    const levels = await voices
      .first()
      .locator('rect')
      .evaluateAll((bars) => bars.map((bar) => Number(bar.getAttribute('height'))))
    expect(Math.max(...levels)).toBeGreaterThan(2)
    expect(ada.complaints).toEqual([])
    await ada.leave()
  })
})
