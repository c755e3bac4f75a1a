import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

describe('an account', () => {
  let browser: Browser
  let relay: Relay

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })

  async function registered(name: string, password: string): Promise<Person> {
    const person = await Person.arrive(browser, relay.origin)
    await person.page.goto(`${relay.origin}/auth?mode=register`)
    await person.page.getByLabel('Name', { exact: true }).fill(name)
    await person.page.getByLabel('Password', { exact: true }).fill(password)
    await person.page.getByLabel('Repeat password').fill(password)
    await person.page.locator('button[type=submit]').click()
    await person.page.waitForURL(/\/chat/)
    return person
  }

  async function signIn(person: Person, name: string, password: string): Promise<void> {
    await person.page.goto(`${relay.origin}/auth`)
    await person.page.getByLabel('Name', { exact: true }).fill(name)
    await person.page.getByLabel('Password', { exact: true }).fill(password)
    await person.page.locator('button[type=submit]').click()
  }

  it('hands its keys to a second browser by a code, and restores them in a third from the phrase', async () => {
    const ada = await registered('Lin', 'first-secret')
    await ada.createRoom({ name: 'Secret', isPublic: false, encrypted: true })
    await ada.say('Only for us')
    await ada.button('Settings').click()
    const settings = ada.dialog('Settings')
    await settings.getByRole('button', { name: 'Create a recovery phrase' }).click()
    const words = await settings.getByRole('list', { name: 'Recovery phrase' }).getByRole('listitem').allTextContents()
    expect(words).toHaveLength(12)
    await settings.getByRole('button', { name: 'I have written them down' }).click()
    for (const field of await settings.getByLabel(/^Word \d+$/).all()) {
      const label = await field.evaluate((input) => (input as HTMLInputElement).labels?.[0]?.textContent ?? '')
      await field.fill(words[Number(label.split(' ')[1]) - 1]!)
    }
    await settings.getByRole('button', { name: 'Start the backup' }).click()
    await settings.getByText('this browser keeps it up to date').waitFor()

    const second = await Person.arrive(browser, relay.origin)
    await signIn(second, 'Lin', 'first-secret')
    await second.page.waitForURL(/\/chat/)
    await second.button('Settings').click()
    const there = second.dialog('Settings')
    await there.getByRole('button', { name: 'Get the keys from another device' }).click()
    await settings.getByRole('button', { name: 'Hand over the keys' }).click()
    const code = await there.locator('strong.code').textContent()
    await settings.getByLabel('Code on the other device').fill(code ?? '')
    await settings.getByRole('button', { name: 'Send the keys' }).click()
    // Each shows a code to the other: the new browser takes nothing before it knows whose keys it has.
    const back = await settings.locator('strong.code').textContent()
    await there.getByLabel('Code on the other device').fill(back ?? '')
    await there.getByRole('button', { name: 'Take the keys' }).click()
    await there.getByRole('button', { name: 'Get the keys from another device' }).waitFor({ state: 'detached' })
    await there.getByText('this browser does not know').waitFor()

    const third = await Person.arrive(browser, relay.origin)
    await signIn(third, 'Lin', 'first-secret')
    await third.page.waitForURL(/\/chat/)
    await third.button('Settings').click()
    await third.dialog('Settings').getByLabel('Recovery phrase').fill(words.join(' '))
    await third.dialog('Settings').getByRole('button', { name: 'Restore the keys' }).click()
    await third.dialog('Settings').getByText('this browser keeps it up to date').waitFor()
    await third.page.keyboard.press('Escape')
    await third.openRoom('Secret')
    await third.sees('Only for us')
    // A QR code leads to the settings, and its secret does not stay in the address bar.
    await ada.page.goto('about:blank')
    await ada.page.goto(`${relay.origin}/chat#link-0123456789abcdef-${'f'.repeat(32)}`)
    await settings.waitFor()
    expect(new URL(ada.page.url()).hash).toBe('')
    expect([...ada.complaints, ...second.complaints, ...third.complaints]).toEqual([])
    for (const person of [ada, second, third]) await person.leave()
  })

  it('changes its password, signs out in every tab, and signs in with the new one only', async () => {
    const ada = await registered('Ada', 'first-secret')
    const tab = await ada.otherTab()
    await ada.button('Settings').click()
    const settings = ada.dialog('Settings')
    await settings.getByLabel('Current password').fill('not it')
    await settings.getByLabel('New password').fill('second-secret')
    await settings.getByRole('button', { name: 'Change password' }).click()
    await settings.getByText('Wrong name or password.').waitFor()
    await settings.getByLabel('Current password').fill('first-secret')
    await settings.getByRole('button', { name: 'Change password' }).click()
    await ada.page.getByText('Password changed.').waitFor()
    await settings.getByRole('button', { name: 'Sign out' }).click()
    await ada.page.getByRole('alertdialog').getByRole('button', { name: 'Sign out' }).click()
    await ada.page.getByLabel('Your name').waitFor()
    await tab.page.getByLabel('Your name').waitFor()

    await signIn(ada, 'Ada', 'first-secret')
    await ada.page.getByText('Wrong name or password.').waitFor()
    await signIn(ada, 'Ada', 'second-secret')
    await ada.page.waitForURL(/\/chat/)
    expect(ada.complaints).toEqual([])
    await ada.leave()
  })

  it('keeps its messages in a file that another browser can read; a spoilt file changes nothing', async () => {
    const ada = await registered('Grace', 'some-secret')
    await ada.createRoom({ name: 'Archive', isPublic: false, encrypted: true })
    await ada.say('To be kept')
    await ada.isDelivered('To be kept')
    await ada.button('Settings').click()
    const [download] = await Promise.all([
      ada.page.waitForEvent('download'),
      ada.dialog('Settings').getByRole('button', { name: 'Export' }).click(),
    ])
    const file = await download.path()
    // Nobody is left who has the key of the room.
    await ada.page.goto('about:blank')
    const other = await Person.arrive(browser, relay.origin)
    await signIn(other, 'Grace', 'some-secret')
    await other.page.waitForURL(/\/chat/)
    await other.button('Settings').click()
    const picker = other.dialog('Settings').locator('input[type=file]')
    await picker.setInputFiles({ name: 'x.json', mimeType: 'application/json', buffer: Buffer.from('{"messages": 7}') })
    await other.dialog('Settings').getByRole('alert').waitFor()
    await picker.setInputFiles(file)
    await other.page.getByText(/Imported messages: \d, keys: [1-9]/).waitFor()
    await other.page.keyboard.press('Escape')
    await other.openRoom('Archive')
    await other.sees('To be kept')
    await ada.leave()
    await other.leave()
  })

  it('says of an invitation that it is none, and stays where it is', async () => {
    const eve = await Person.guest(browser, relay.origin, 'Eve')
    await eve.page.goto(`${relay.origin}/chat?join=${encodeURIComponent('../../meta/**')}`)
    await eve.page.getByText('This is not an invitation link or a room ID.').waitFor()
    await eve.page.goto(`${relay.origin}/chat?join=00000000-0000-4000-8000-00000000dead`)
    await eve.dialog('Join room').getByText('This room does not exist').waitFor()
    await eve.page.keyboard.press('Escape')
    await eve.page.getByText('No room selected').waitFor()
    await eve.leave()
  })

  it('keeps rooms in a group that others find by browsing', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ida')
    await ada.page.keyboard.press('Alt+b')
    await ada.button('New group').click()
    await ada.dialog('New group').getByLabel('Address').fill('games')
    await ada.dialog('New group').getByLabel('Description').fill('Boards and cards')
    await ada.button('Create').click()
    await ada.dialog('New group').waitFor({ state: 'detached' })
    await ada.page.keyboard.press('Escape')
    await ada.page.keyboard.press('Alt+n')
    await ada.dialog('New room').getByLabel('Name', { exact: true }).fill('Chess')
    await ada.dialog('New room').getByLabel('Group').fill('games')
    await ada.button('Create room').click()
    await ada.isIn('Chess')
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.page.keyboard.press('Alt+b')
    await bob
      .dialog('Browse rooms')
      .getByRole('button', { name: /^games/ })
      .click()
    await bob.button('Join: Chess').click()
    await bob.acceptInvitation()
    await bob.isIn('Chess')
    await ada.leave()
    await bob.leave()
  })
})
