import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import {
  chromium,
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  type Locator,
  type Page,
} from 'playwright-core'

const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome']
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
]
const PATIENCE_MS = 60_000

function browserPath(): string {
  const given = process.env['CHROMIUM']
  if (given) return given
  for (const folder of (process.env['PATH'] ?? '').split(delimiter))
    for (const name of BROWSERS) {
      const path = join(folder, name)
      try {
        accessSync(path, constants.X_OK)
        return path
      } catch {
        // Not in this folder.
      }
    }
  throw new Error('no Chromium found; name it in CHROMIUM')
}

/** @param flags more of Chromium's own. */
export const launch = (...flags: string[]): Promise<Browser> =>
  chromium.launch({ executablePath: browserPath(), args: [...FLAGS, ...flags] })

export interface RoomWish {
  readonly name: string
  readonly isPublic?: boolean
  readonly encrypted?: boolean
  readonly password?: string
}

/** Somebody in front of a browser of their own. */
export class Person {
  /** What the page complained about: errors of scripts and of the Content-Security-Policy. */
  readonly complaints: string[] = []

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    readonly origin: string,
  ) {
    page.setDefaultTimeout(PATIENCE_MS)
    page.on('pageerror', (error) => this.complaints.push(error.message))
    page.on('console', (message) => {
      const text = message.text()
      if (message.type() === 'error' && /Content Security Policy|Refused to/.test(text)) this.complaints.push(text)
    })
  }

  static async arrive(browser: Browser, origin: string, options: BrowserContextOptions = {}): Promise<Person> {
    const context = await browser.newContext({ locale: 'en-US', reducedMotion: 'reduce', ...options })
    return new Person(context, await context.newPage(), origin)
  }

  /** Arrives and enters as a guest. */
  static async guest(
    browser: Browser,
    origin: string,
    name: string,
    options: BrowserContextOptions = {},
  ): Promise<Person> {
    const person = await Person.arrive(browser, origin, options)
    await person.page.goto(origin)
    await person.enterAs(name)
    return person
  }

  /** A second tab of the same person. */
  async otherTab(path = '/chat'): Promise<Person> {
    const tab = new Person(this.context, await this.context.newPage(), this.origin)
    await tab.page.goto(this.origin + path)
    return tab
  }

  async leave(): Promise<void> {
    await this.context.close()
  }

  async enterAs(name: string): Promise<void> {
    await this.page.getByLabel('Your name').fill(name)
    await this.page.getByRole('button', { name: 'Start chatting' }).click()
    await this.page.waitForURL(/\/chat/)
  }

  button(name: string | RegExp): Locator {
    return this.page.getByRole('button', { name })
  }

  dialog(name: string | RegExp): Locator {
    return this.page.getByRole('dialog', { name }).or(this.page.getByRole('alertdialog', { name }))
  }

  /** Confirms what a dialog asks, by the word on its button. */
  async confirm(word: string): Promise<void> {
    const dialog = this.page.getByRole('alertdialog')
    await dialog.getByRole('button', { name: word, exact: true }).click()
    await dialog.waitFor({ state: 'detached' })
  }

  async createRoom(wish: RoomWish): Promise<void> {
    await this.page.keyboard.press('Alt+n')
    const dialog = this.dialog('New room')
    await dialog.getByLabel('Name', { exact: true }).fill(wish.name)
    if (wish.isPublic === false) await dialog.getByRole('switch', { name: 'Public' }).click()
    // Private rooms start encrypted.
    const encryption = dialog.getByRole('switch', { name: 'End-to-end encrypted' })
    if ((wish.encrypted ?? false) !== (wish.isPublic === false)) await encryption.click()
    if (wish.password) await dialog.getByLabel('Password (optional)').fill(wish.password)
    await dialog.getByRole('button', { name: 'Create room' }).click()
    await dialog.waitFor({ state: 'detached' })
    await this.isIn(wish.name)
  }

  async isIn(room: string): Promise<void> {
    await this.page.getByRole('region', { name: room, exact: true }).waitFor()
    await this.page.getByRole('textbox', { name: `Message to ${room}` }).waitFor()
  }

  /** The link to the room on screen, from its dialog. */
  async inviteLink(): Promise<string> {
    await this.button('Invite people').first().click()
    const dialog = this.dialog('Invite people')
    const link = await dialog.getByLabel('Link', { exact: true }).inputValue()
    await this.page.keyboard.press('Escape')
    await dialog.waitFor({ state: 'detached' })
    return link
  }

  /** Follows an invitation, with the room's password where there is one. */
  async follow(link: string, room: string, password?: string): Promise<void> {
    await this.page.goto(link)
    await this.acceptInvitation(password)
    await this.isIn(room)
  }

  async acceptInvitation(password?: string): Promise<void> {
    const dialog = this.dialog('Join room')
    if (password !== undefined) await dialog.getByLabel('Room password').fill(password)
    await dialog.getByRole('button', { name: 'Join', exact: true }).click()
  }

  async openRoom(name: string): Promise<void> {
    await this.roomLink(name).click()
    await this.isIn(name)
  }

  roomLink(name: string): Locator {
    return this.page.getByRole('navigation', { name: 'Rooms' }).getByRole('link', { name })
  }

  get composer(): Locator {
    return this.page.getByRole('textbox', { name: /^Message to/ })
  }

  /** Writes and sends; `shown` is how it then stands there, where that is not as it was written. */
  async say(text: string, shown = text): Promise<void> {
    await this.composer.fill(text)
    await this.composer.press('Enter')
    await this.message(shown).waitFor()
  }

  message(text: string | RegExp): Locator {
    return this.page.getByRole('article').filter({ hasText: text })
  }

  async sees(text: string | RegExp): Promise<void> {
    await this.message(text).first().waitFor()
  }

  /** A message that the relay has shows no mark any more. */
  async isDelivered(text: string): Promise<void> {
    await this.message(text).first().waitFor()
    await this.message(text).locator('.mark').waitFor({ state: 'detached' })
  }

  /** Opens the menu of a message and chooses from it. */
  async choose(text: string, entry: string): Promise<void> {
    await this.message(text).hover()
    await this.message(text).getByRole('button', { name: 'Message actions' }).click()
    await this.page.getByRole('menuitem', { name: entry }).click()
  }

  /** Finds an emoji in the open picker, which fetches its data first, and takes the first hit. */
  async pickEmoji(name: string): Promise<void> {
    const field = this.page.getByLabel('Find an emoji')
    await field.fill(name)
    await this.page.getByRole('group', { name: 'Emoji' }).getByRole('button', { name }).first().waitFor()
    await field.press('Enter')
  }

  async openPanel(tab: 'Members' | 'Room' | 'Security'): Promise<void> {
    const panel = this.page.getByRole('complementary', { name: 'Room details' })
    if (!(await panel.isVisible())) await this.button('Show room details').click()
    await panel.getByRole('tab', { name: tab }).click()
  }

  /** Does something to a member by the menu in the list of people. */
  async act(member: string, entry: string): Promise<void> {
    await this.openPanel('Members')
    await this.button(`Actions for ${member}`).click()
    await this.page.getByRole('menuitem', { name: entry }).click()
  }

  async ownId(): Promise<string> {
    await this.button(/Your profile and status/).click()
    const dialog = this.dialog('Your profile')
    const id = await dialog.getByLabel('Your user ID').inputValue()
    await this.page.keyboard.press('Escape')
    await dialog.waitFor({ state: 'detached' })
    return id
  }
}
