import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, URL } from 'node:url'
import type { AxeResults } from 'axe-core'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { encodeFrame } from '../../src/protocol/codec'
import { launch, Person } from './people'
import { Relay } from './relay'

const SCREENSHOTS = fileURLToPath(new URL('../../../../docs/screenshots', import.meta.url))
const SMALLEST = { viewport: { width: 320, height: 640 }, isMobile: true, hasTouch: true }
const PARAMS = 2_000
/** Each param changes twice in a second. */
const TURN_MS = 100
const CHANGES_PER_TURN = 400
/** A frame holds so many changes. */
const BUNDLE = 200
/** What the page promises, and what it may be late: some of the changes of one tenth of a second. */
const MOST_SHOWN_PER_S = 100
/** 60 where the machine has time; this one may be busy with other tests. */
const LEAST_FRAMES_PER_S = 20

const PAGES = [
  ['state', 'Live state'],
  ['sessions', 'Sessions'],
  ['doors', 'Doors'],
  ['metrics', 'Metrics'],
  ['policy', 'Policy'],
  ['log', 'Log'],
  ['people', 'Users and guests'],
  ['registration', 'Registration'],
  ['rooms', 'Rooms'],
  ['reports', 'Reports'],
  ['audit', 'Audit log'],
] as const

const addressOf = (index: number): string => `/show/light/${index % 20}/channel/${index}`

/** A client that changes params as long as it is connected. */
class Load {
  private timer: NodeJS.Timeout | null = null
  private next = 0
  private round = 0

  private constructor(private readonly socket: WebSocket) {
    socket.on('close', () => this.stop())
  }

  static async start(origin: string, token: string): Promise<Load> {
    const socket = new WebSocket(`${origin.replace('http', 'ws')}/ws`, 'clasp')
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    socket.send(encodeFrame({ type: 'HELLO', version: 1, name: 'Lighting desk', features: ['param'], token }))
    const load = new Load(socket)
    for (let sent = 0; sent < PARAMS; sent += BUNDLE) load.change(BUNDLE)
    load.timer = setInterval(() => {
      for (let sent = 0; sent < CHANGES_PER_TURN; sent += BUNDLE) load.change(BUNDLE)
    }, TURN_MS)
    return load
  }

  get connected(): boolean {
    return this.socket.readyState === WebSocket.OPEN
  }

  stop(): void {
    if (this.timer) clearInterval(this.timer)
    this.socket.close()
  }

  private change(count: number): void {
    const messages = Array.from({ length: count }, () => {
      const index = this.next
      this.next = (this.next + 1) % PARAMS
      if (this.next === 0) this.round += 1
      const value = Math.round(1_000 * Math.sin(this.round / 10 + index)) / 1_000
      return { type: 'SET' as const, address: addressOf(index), value }
    })
    this.socket.send(encodeFrame({ type: 'BUNDLE', messages }))
  }
}

describe('the console', () => {
  let axe: string
  let browser: Browser
  let relay: Relay
  let folder: string
  let token: string
  let load: Load | null = null

  beforeAll(async () => {
    axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
    folder = await mkdtemp(join(tmpdir(), 'clasp-console-'))
    const file = join(folder, 'admin.token')
    ;[browser, relay] = await Promise.all([launch(), Relay.start({ 'admin-token': file, 'rate-limit': '0' })])
    token = (await readFile(file, 'utf8')).trim()
  })
  afterAll(async () => {
    load?.stop()
    await browser.close()
    await relay.stop()
    await rm(folder, { recursive: true, force: true })
  })

  async function flaws(page: Page): Promise<string[]> {
    await page.evaluate(axe)
    // Colours that are still changing are nobody's.
    await page.waitForTimeout(150)
    const { violations } = await page.evaluate(() => (window as unknown as { axe: { run(): AxeResults } }).axe.run())
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)}`))
  }

  async function picture(page: Page, name: string): Promise<void> {
    if (!process.env['UPDATE_SCREENSHOTS']) return
    await mkdir(SCREENSHOTS, { recursive: true })
    await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`) })
  }

  /** Opens the console with the relay's own token. */
  async function enter(options: BrowserContextOptions = {}): Promise<Person> {
    const admin = await Person.arrive(browser, relay.origin, options)
    await admin.page.goto(`${relay.origin}/console`)
    await admin.button('Sign in with the admin token').click()
    await admin.page.getByLabel('Admin token').fill(token)
    await admin.page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await admin.page.getByRole('region', { name: 'Live state' }).waitFor()
    return admin
  }

  async function open({ page }: Person, name: string, title: string, query = ''): Promise<void> {
    await page.goto(`${relay.origin}/console/${name}${query}`)
    await page.getByRole('heading', { name: title, level: 1 }).waitFor()
    await expect.poll(() => page.getByText('Loading…', { exact: true }).count(), { timeout: 60_000 }).toBe(0)
  }

  async function register(username: string, password = 'correct horse'): Promise<string> {
    const response = await fetch(`${relay.origin}/auth/register`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ username, password }),
    })
    expect(response.status).toBe(200)
    return ((await response.json()) as { user_id: string }).user_id
  }

  const api = (path: string, bearer = token): Promise<Response> =>
    fetch(`${relay.origin}/api/admin/${path}`, { headers: { Authorization: `Bearer ${bearer}` } })

  it('has a word for each page that has nothing to show, and for each that fails', async () => {
    const admin = await enter()
    const { page } = admin
    for (const [name, title, words] of [
      ['state', 'Live state', 'Nothing matches this pattern'],
      ['people', 'Users and guests', 'Nobody here'],
      ['registration', 'Registration', 'No invites'],
      ['rooms', 'Rooms', 'No rooms'],
      ['reports', 'Reports', 'No reports'],
    ] as const) {
      await open(admin, name, title, name === 'state' ? '?pattern=/nothing/**' : '')
      await page.getByText(words).waitFor()
      expect([name, ...(await flaws(page))]).toEqual([name])
    }
    const refusal = { status: 503, json: { error: 'The relay is busy; try again later.' } }
    await page.route(/\/api\/admin\/(?!me)/, (route) => route.fulfill(refusal))
    for (const [name, title] of PAGES) {
      await open(admin, name, title)
      if (name === 'policy') {
        await page.getByLabel('User ID').fill('somebody')
        await page.getByLabel('Address').fill('/a')
        await admin.button('Explain').click()
      }
      await page.getByRole('alert').filter({ hasText: 'The relay is busy' }).first().waitFor()
      expect([name, ...(await flaws(page))]).toEqual([name])
    }
    await page.unroute(/\/api\/admin\/(?!me)/)
    await open(admin, 'people', 'Users and guests')
    await page.route('**/api/admin/people*', (route) => route.abort())
    await page.getByLabel('Search').fill('x')
    await page.getByText('The server cannot be reached').waitFor()
    await page.unroute('**/api/admin/people*')
    await admin.button('Try again').click()
    await page.getByText('Nobody has this text').waitFor()
    expect(admin.complaints).toEqual([])
    await admin.leave()
  })

  it('lets administrators in, for as long as their tab is open, and nobody else', async () => {
    await register('boss')
    const userId = await register('somebody')
    await relay.command('admin', 'grant', 'boss')
    const admin = await Person.arrive(browser, relay.origin)
    const { page } = admin
    await page.goto(`${relay.origin}/console/people`)
    expect(await flaws(page)).toEqual([])
    const signIn = async (name: string, password: string): Promise<void> => {
      await page.getByLabel('Name').fill(name)
      await page.getByLabel('Password', { exact: true }).fill(password)
      await page.getByRole('button', { name: 'Sign in', exact: true }).click()
    }
    await signIn('boss', 'wrong')
    await page.getByRole('alert').filter({ hasText: 'Wrong name or password' }).waitFor()
    await signIn('somebody', 'correct horse')
    await page
      .getByRole('alert')
      .filter({ hasText: /Wrong name or password|permission/ })
      .waitFor()
    expect(new URL(page.url()).pathname).toBe('/console/sign-in')
    // The command line has granted it; the relay takes note soon.
    await expect
      .poll(
        async () => {
          await signIn('boss', 'correct horse')
          // Signing in takes a while, and ends here or on the page that was wanted.
          await page.locator('button[aria-busy]').waitFor({ state: 'detached' })
          await page
            .getByRole('alert')
            .or(page.getByRole('heading', { name: 'Users and guests' }))
            .first()
            .waitFor()
          return new URL(page.url()).pathname
        },
        { timeout: 60_000 },
      )
      .toBe('/console/people')
    await page.getByText(userId).waitFor()
    await page.reload()
    await page.getByText(userId).waitFor()
    expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain('cpca_')
    const other = await admin.otherTab('/console/people')
    await other.page.getByRole('heading', { name: 'Sign in to the console' }).waitFor()
    const [, consoleToken] = await page.evaluate(() => Object.entries(sessionStorage)[0] as [string, string])
    await admin.button('Sign out').click()
    await page.getByRole('heading', { name: 'Sign in to the console' }).waitFor()
    expect(await page.evaluate(() => sessionStorage.length)).toBe(0)
    expect((await api('me', consoleToken)).status).toBe(401)
    expect([...admin.complaints, ...other.complaints]).toEqual([])
    await admin.leave()
  })

  it('shows what changes, at most 100 changes in a second, and scrolls smoothly meanwhile', async () => {
    load = await Load.start(relay.origin, token)
    const admin = await enter()
    const { page } = admin
    await page.getByText(/^2,\d{3} addresses/).waitFor()
    await admin.button('Expand all').click()
    const tree = page.getByRole('tree')
    await tree.getByRole('treeitem', { name: '1/channel/1' }).or(tree.getByRole('treeitem').nth(5)).first().waitFor()
    await page.getByText(/[1-9],?\d{2,3} updates per second/).waitFor()
    const { changes, seconds } = await page.evaluate(async () => {
      let seen = 0
      const isValue = ({ target }: MutationRecord): boolean =>
        (target instanceof Element ? target : target.parentElement)?.classList.contains('value') === true
      const observer = new MutationObserver((records) => (seen += records.filter(isValue).length))
      observer.observe(document.querySelector('[role=tree]')!, { subtree: true, childList: true, characterData: true })
      const start = performance.now()
      await new Promise((resolve) => setTimeout(resolve, 3_000))
      observer.disconnect()
      return { changes: seen, seconds: (performance.now() - start) / 1_000 }
    })
    expect(changes).toBeGreaterThan(0)
    expect(changes).toBeLessThanOrEqual((seconds + 1) * MOST_SHOWN_PER_S)
    const frames = await page.evaluate(async () => {
      const scroller = document.querySelector('[role=tree]')!
      const start = performance.now()
      let count = 0
      while (performance.now() - start < 3_000) {
        scroller.scrollTop = (scroller.scrollTop + 60) % (scroller.scrollHeight - scroller.clientHeight)
        await new Promise(requestAnimationFrame)
        count += 1
      }
      return (count * 1_000) / (performance.now() - start)
    })
    process.stdout.write(
      `live state: ${changes} changes shown in ${seconds.toFixed(1)} s, ${frames.toFixed(0)} frames/s\n`,
    )
    expect(frames).toBeGreaterThan(LEAST_FRAMES_PER_S)
    await admin.button('Pause').click()
    const values = (): Promise<string[]> => tree.locator('.value').allTextContents()
    const before = await values()
    await page.waitForTimeout(700)
    expect(await values()).toEqual(before)
    await admin.button('Resume').click()
    await expect.poll(values).not.toEqual(before)
    expect(admin.complaints).toEqual([])
    await admin.leave()
  })

  it('inspects, plots, writes and publishes', async () => {
    const admin = await enter()
    const { page } = admin
    await open(admin, 'state', 'Live state', `?address=${addressOf(0)}`)
    const inspector = page.getByRole('complementary', { name: 'Selected address' })
    await inspector.getByText('float').waitFor()
    await page.getByRole('treeitem', { name: '0/channel' }).first().click()
    await page.getByRole('treeitem').nth(5).locator('.value').waitFor()
    await inspector.getByRole('img', { name: /channel\/0: now -?[\d.]+, lowest/ }).waitFor()
    await page.waitForTimeout(3_000)
    await picture(page, 'console')
    expect(await flaws(page)).toEqual([])
    await admin.button('Write…').click()
    const dialog = admin.dialog('Write a value')
    await dialog.getByLabel('Address').fill('/show/title')
    await dialog.getByLabel('Value (JSON)').fill('Hello')
    await dialog.getByRole('button', { name: 'Save' }).click()
    await dialog.getByText('This is not JSON').waitFor()
    await dialog.getByLabel('Value (JSON)').fill('{"text": "Hello"}')
    await dialog.getByLabel('Time to live').fill('600')
    expect(await flaws(page)).toEqual([])
    await dialog.getByRole('button', { name: 'Save' }).click()
    await dialog.waitFor({ state: 'detached' })
    await open(admin, 'state', 'Live state', '?pattern=/show/*&address=/show/title')
    await inspector.getByText('in 10 min').waitFor()
    await inspector.getByRole('button', { name: 'Edit' }).click()
    await expect.poll(() => dialog.getByLabel('Value (JSON)').inputValue()).toContain('Hello')
    await dialog.getByLabel('Value (JSON)').fill('"Good evening"')
    await dialog.getByRole('button', { name: 'Save' }).click()
    await page.getByRole('tree').getByText('"Good evening"').waitFor()
    await inspector.getByRole('button', { name: 'Delete' }).click()
    await admin.confirm('Delete')
    await page.getByRole('tree').getByText('"Good evening"').waitFor({ state: 'detached' })
    expect((await api('param?address=/show/title')).status).toBe(404)
    await admin.button('Write…').click()
    await dialog.getByLabel('Address').fill('/show/go')
    await dialog.getByLabel('As').selectOption('publish')
    await dialog.getByLabel('Value (JSON)').fill('7')
    await dialog.getByRole('button', { name: 'Publish' }).click()
    await page.getByRole('treeitem', { name: /go/ }).getByText('1×').waitFor()
    expect(admin.complaints).toEqual([])
    await admin.leave()
  })

  it('manages people by its pages alone', async () => {
    await register('mallory')
    const admin = await enter()
    const { page } = admin
    await open(admin, 'people', 'Users and guests')
    const card = page.getByRole('listitem').filter({ hasText: 'mallory' }).first()
    const act = async (entry: string): Promise<void> => {
      await card.getByRole('button', { name: /^Actions for/ }).click()
      await page.getByRole('menuitem', { name: entry }).click()
    }
    await act('Disable')
    expect(await flaws(page)).toEqual([])
    await admin.confirm('Disable')
    await card.getByText('Disabled').waitFor()
    await act('Enable')
    await admin.confirm('Enable')
    await card.getByText('Disabled').waitFor({ state: 'detached' })
    await act('Rename')
    await admin.dialog('Rename mallory').getByLabel('Name').fill('mallory2')
    await admin.dialog('Rename mallory').getByRole('button', { name: 'Rename' }).click()
    await page.getByText('mallory2').waitFor()
    await act('New password by link')
    await admin.confirm('Make link')
    const dialog = admin.dialog('Link for mallory2')
    const link = await dialog.getByLabel('One-time link').inputValue()
    expect(await flaws(page)).toEqual([])
    await dialog.getByRole('button', { name: 'Close' }).last().click()
    await follow(link)
    await act('Delete')
    expect(await page.getByLabel('Messages in rooms').inputValue()).toBe('keep')
    await page.getByLabel('Messages in rooms').selectOption('erase')
    expect(await flaws(page)).toEqual([])
    await admin.confirm('Delete')
    await page.getByText('mallory2').waitFor({ state: 'detached' })
    await open(admin, 'registration', 'Registration')
    await page.getByLabel('New accounts').selectOption('invite')
    await admin.button('Save').click()
    await page.getByText('Set here.').waitFor()
    await admin.button('Create').click()
    const code = await admin.dialog('The invite').getByLabel('Invite', { exact: true }).inputValue()
    expect(code.length).toBeGreaterThan(8)
    await page.keyboard.press('Escape')
    await admin.button('Revoke').click()
    await admin.confirm('Revoke')
    await page.getByText('No invites').waitFor()
    await admin.button('Use the options of the relay').click()
    await page.getByText('As the relay was started.').waitFor()
    const { items } = (await (await api('audit?limit=200')).json()) as { items: { action: string; detail: object }[] }
    expect(items.find(({ action }) => action === 'admin.delete')?.detail).toEqual({ messages: 'erase' })
    const done = ['disable', 'enable', 'rename', 'reset_password', 'delete', 'registration', 'invite', 'revoke_invite']
    expect(items.map(({ action }) => action)).toEqual(expect.arrayContaining(done.map((one) => `admin.${one}`)))
    expect(admin.complaints).toEqual([])
    await admin.leave()
  })

  /** Chooses a new password with a one-time link, as whoever got it does. */
  async function follow(link: string): Promise<void> {
    const person = await Person.arrive(browser, relay.origin)
    await person.page.goto(link)
    expect(await flaws(person.page)).toEqual([])
    expect(person.page.url()).not.toContain('#')
    await person.page.getByLabel('New password').fill('battery staple')
    await person.page.getByLabel('Repeat password').fill('battery staple')
    await person.button('Save').click()
    await person.page.getByText('The password of mallory2 is changed').waitFor()
    expect(person.complaints).toEqual([])
    await person.leave()
  }

  it('gets reports from the chat, and rules over rooms', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Stage crew', isPublic: true })
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.follow(await ada.inviteLink(), 'Stage crew')
    await ada.say('Rude words')
    await bob.sees('Rude words')
    await bob.choose('Rude words', 'Report')
    expect(await flaws(bob.page)).toEqual([])
    await bob.dialog('Report this message?').getByLabel('What is wrong with it?').fill('Insults')
    await bob.button('Send report').click()
    await bob.page.getByText('The report was sent.').waitFor()
    const bobId = await bob.ownId()

    const admin = await enter()
    const { page } = admin
    await open(admin, 'reports', 'Reports')
    const report = page.getByRole('listitem').filter({ hasText: 'Rude words' })
    for (const words of ['Ada', 'Bob', 'Insults']) await report.getByText(words).first().waitFor()
    await report.getByText('A claim: the relay has proven who reported it').waitFor()
    // The reporter's words, and beside them the relay's.
    await report.getByText('From its own history').waitFor()
    await report.getByText('Rude words').nth(1).waitFor()
    expect(await report.getByText('Differs from what was kept').count()).toBe(0)
    expect(await flaws(page)).toEqual([])
    await report.getByRole('button', { name: 'Resolve' }).click()
    await admin.dialog('Resolve this report').getByLabel('Note').fill('Spoke with Ada')
    await admin.dialog('Resolve this report').getByRole('button', { name: 'Resolve' }).click()
    await page.getByText('No reports').waitFor()
    await page.getByLabel('Show').selectOption('all')
    await page.getByText('Spoke with Ada').waitFor()

    await open(admin, 'rooms', 'Rooms')
    const room = page.getByRole('listitem').filter({ hasText: 'Stage crew' })
    await room.getByRole('button', { name: 'Details' }).click()
    const dialog = admin.dialog('Stage crew')
    await dialog.getByText(/Kept messages: 1 /).waitFor()
    await dialog.getByLabel('User ID').fill(bobId)
    expect(await flaws(page)).toEqual([])
    await dialog.getByRole('button', { name: 'Ban', exact: true }).last().click()
    await dialog.getByRole('button', { name: 'Lift ban' }).waitFor()
    await bob.page
      .getByText('You are banned from this room')
      .or(bob.page.getByText('You were banned from'))
      .first()
      .waitFor()
    await dialog.getByRole('button', { name: 'Lift ban' }).click()
    await dialog.getByText('Nobody is banned.').waitFor()
    await page.keyboard.press('Escape')
    await room.getByRole('button', { name: 'Delete' }).click()
    await admin.confirm('Delete')
    await page.getByText('No rooms').waitFor()
    expect([...admin.complaints, ...ada.complaints, ...bob.complaints]).toEqual([])
    for (const person of [admin, ada, bob]) await person.leave()
  })

  it('watches the relay: sessions, doors, metrics, policy, log, audit log', async () => {
    const admin = await enter()
    const { page } = admin
    await open(admin, 'sessions', 'Sessions')
    const desk = page.getByRole('listitem').filter({ hasText: 'Lighting desk' })
    await desk.getByRole('button', { name: 'Subscriptions' }).click()
    await desk.getByText('No subscriptions').waitFor()
    await desk.getByRole('button', { name: 'End session' }).click()
    await admin.confirm('End session')
    await expect.poll(() => load?.connected).toBe(false)
    await open(admin, 'doors', 'Doors')
    await page.getByText('sse', { exact: true }).waitFor()
    await open(admin, 'metrics', 'Metrics')
    await page.getByRole('img', { name: /^clasp_messages_received: now/ }).waitFor()
    await picture(page, 'console-metrics')
    await page.getByLabel('Search metrics').fill('outbox')
    await page.getByText('clasp_outbox_bytes').waitFor()
    await open(admin, 'policy', 'Policy')
    await page.getByLabel('User ID').fill('somebody')
    await page.getByLabel('Address').fill('/chat/user/somebody-else/profile')
    await admin.button('Explain').click()
    await page.getByRole('status').getByText('Refused').waitFor()
    expect(await flaws(page)).toEqual([])
    await open(admin, 'log', 'Log')
    await page.getByText('listens on').first().waitFor()
    await page.getByLabel('Search lines').fill('nothing has these words')
    await page.getByText('No lines').waitFor()
    await open(admin, 'audit', 'Audit log')
    await page.getByText('admin.session.end', { exact: true }).first().waitFor()
    const [download] = await Promise.all([page.waitForEvent('download'), admin.button('Export').click()])
    const lines = (await readFile(await download.path(), 'utf8')).trim().split('\n')
    const actions = lines.map((line) => (JSON.parse(line) as { action: string }).action)
    expect(actions).toContain('admin.session.end')
    expect(admin.complaints).toEqual([])
    await admin.leave()
  })

  it('fits the smallest screen, in the dark, too', async () => {
    const admin = await enter({ ...SMALLEST, colorScheme: 'dark' })
    const { page } = admin
    for (const [name, title] of PAGES) {
      await open(admin, name, title)
      const wide = await page.evaluate(() =>
        [document.documentElement, document.querySelector('main')!].map((one) => one.scrollWidth - one.clientWidth),
      )
      expect([name, wide]).toEqual([name, [0, 0]])
      expect([name, ...(await flaws(page))]).toEqual([name])
    }
    await admin.button('Open menu').tap()
    expect(await flaws(page)).toEqual([])
    await page.getByRole('link', { name: 'Rooms' }).tap()
    await page.getByRole('heading', { name: 'Rooms', level: 1 }).waitFor()
    expect(admin.complaints).toEqual([])
    await admin.leave()
  })

  it('works with the keyboard alone', async () => {
    const admin = await enter()
    const { page } = admin
    const tree = page.getByRole('tree')
    await tree.getByRole('treeitem').first().waitFor()
    await tree.focus()
    await page.keyboard.press('End')
    await page.keyboard.press('Home')
    const current = (): Promise<string | null> =>
      page.evaluate(() => {
        const id = document.querySelector('[role=tree]')?.getAttribute('aria-activedescendant')
        return id ? (document.getElementById(id)?.getAttribute('aria-expanded') ?? 'leaf') : null
      })
    await expect.poll(current).not.toBeNull()
    await page.keyboard.press('Control+Home')
    for (let step = 0; step < 30 && (await current()) !== 'true'; step++) await page.keyboard.press('ArrowDown')
    await page.keyboard.press('ArrowLeft')
    await expect.poll(current).toBe('false')
    await page.keyboard.press('ArrowRight')
    await expect.poll(current).toBe('true')
    for (let step = 0; step < 60 && (await current()) !== 'leaf'; step++) {
      if ((await current()) === 'false') await page.keyboard.press('ArrowRight')
      await page.keyboard.press('ArrowDown')
    }
    await page.keyboard.press('Enter')
    await page.getByRole('complementary', { name: 'Selected address' }).waitFor()
    await admin.leave()
  })

  it('is no part of what the chat loads', async () => {
    const guest = await Person.arrive(browser, relay.origin)
    const loaded: string[] = []
    guest.page.on('request', (request) => loaded.push(new URL(request.url()).pathname))
    await guest.page.goto(relay.origin)
    await guest.enterAs('Eve')
    await guest.page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined))
    await guest.page.waitForTimeout(500)
    const kept = await guest.page.evaluate(async () => {
      const names = await window.caches.keys()
      const requests = await Promise.all(names.map(async (name) => (await window.caches.open(name)).keys()))
      return requests.flat().map(({ url }) => url.slice(window.location.origin.length))
    })
    expect(kept).toContain('/')
    const page = await (await fetch(`${relay.origin}/console`)).text()
    const entry = /src="(\/assets\/console-[^"]+)"/.exec(page)?.[1]
    expect(entry).toBeDefined()
    expect([...loaded, ...kept].filter((path) => path === entry || /console|StatePage/.test(path))).toEqual([])
    // The worker of the chat, which now has this origin, gives its own page to nobody who asks for the console.
    await guest.page.goto(`${relay.origin}/console`)
    await guest.page.getByRole('heading', { name: 'Sign in to the console' }).waitFor()
    expect(guest.complaints).toEqual([])
    await guest.leave()
  })
})
