import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

describe('rooms and people', () => {
  let browser: Browser
  let relay: Relay

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })

  async function owner(room: string, more: { password?: string; isPublic?: boolean } = {}): Promise<[Person, string]> {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: room, isPublic: false, ...more })
    return [ada, await ada.inviteLink()]
  }

  it('keeps a guest’s rooms and identity when the guest registers; a taken name costs nothing', async () => {
    const [ada] = await owner('Mine')
    await ada.say('Written as a guest')
    const before = await ada.ownId()
    const other = await Person.arrive(browser, relay.origin)
    await other.page.goto(`${relay.origin}/auth?mode=register`)
    await other.page.getByLabel('Name', { exact: true }).fill('Taken')
    await other.page.getByLabel('Password', { exact: true }).fill('secret-1')
    await other.page.getByLabel('Repeat password').fill('secret-1')
    await other.page.locator('button[type=submit]').click()
    await other.page.waitForURL(/\/chat/)

    await ada.button('Settings').click()
    await ada.dialog('Settings').getByRole('button', { name: 'Create an account' }).click()
    await ada.page.getByLabel('Name', { exact: true }).fill('Taken')
    await ada.page.getByLabel('Password', { exact: true }).fill('secret-2')
    await ada.page.getByLabel('Repeat password').fill('secret-2')
    await ada.page.locator('button[type=submit]').click()
    await ada.page.getByText('This name is already taken.').waitFor()
    await ada.page.getByLabel('Name', { exact: true }).fill('Ada L')
    await ada.page.locator('button[type=submit]').click()
    await ada.page.waitForURL(/\/chat/)
    await ada.openRoom('Mine')
    await ada.sees('Written as a guest')
    expect(await ada.ownId()).toBe(before)
    await ada.leave()
    await other.leave()
  })

  it('says in place that a password is wrong, and how long to wait after too many', async () => {
    const eve = await Person.arrive(browser, relay.origin)
    await eve.page.goto(`${relay.origin}/auth`)
    await eve.page.getByLabel('Name', { exact: true }).fill('Nobody')
    for (let n = 0; n < 6; n += 1) {
      await eve.page.getByLabel('Password', { exact: true }).fill(`wrong-${n}`)
      await eve.page.locator('button[type=submit]:enabled').click()
      await eve.page.getByText(/Wrong name or password|Too many attempts/).waitFor()
      await eve.page.waitForTimeout(300)
    }
    await eve.page.getByText(/Too many attempts. Try again in \d+ seconds/).waitFor()
    await eve.button(/Wait \d+\ss/).waitFor()
    await eve.leave()
  })

  it('lets in with the right password only', async () => {
    const [ada, link] = await owner('Locked', { password: 'open sesame' })
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.page.goto(link)
    await bob.acceptInvitation('wrong')
    await bob.page.getByText('Wrong room password.').waitFor()
    await bob.acceptInvitation('open sesame')
    await bob.isIn('Locked')
    await bob.say('Inside')
    await ada.sees('Inside')
    await ada.leave()
    await bob.leave()
  })

  it('shows a public room to everybody who browses, under its new name after a rename', async () => {
    const [ada] = await owner('Old name', { isPublic: true })
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.page.keyboard.press('Alt+b')
    await bob.dialog('Browse rooms').getByLabel('Search by name').fill('old')
    await bob.button('Join: Old name').click()
    await bob.acceptInvitation()
    await bob.isIn('Old name')
    await ada.openPanel('Room')
    await ada.page.getByRole('complementary').getByLabel('Name', { exact: true }).fill('New name')
    await ada.page.keyboard.press('Tab')
    await bob.roomLink('New name').waitFor()
    await ada.roomLink('New name').waitFor()
    await ada.leave()
    await bob.leave()
  })

  it('removes and bans with effect, and lifts a ban', async () => {
    const [ada, link] = await owner('Strict')
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.follow(link, 'Strict')
    await bob.say('Hello')
    await ada.sees('Hello')
    await ada.act('Bob', 'Remove from room')
    await ada.confirm('Remove from room')
    await bob.page.getByText('You were removed from Strict.').first().waitFor()
    await bob.page.getByText('You are not a member of this room.').waitFor()

    await bob.follow(link, 'Strict')
    await ada.act('Bob', 'Ban')
    await ada.confirm('Ban')
    await bob.page.getByText(/You are (banned from|not a member of) this room/).waitFor()
    await ada.button('Lift ban: Bob').click()
    await bob.follow(link, 'Strict')
    await bob.say('Back again')
    await ada.sees('Back again')
    await ada.leave()
    await bob.leave()
  })

  it('makes friends and talks in private, also after a reload', async () => {
    const [ada, link] = await owner('Party')
    const bob = await Person.guest(browser, relay.origin, 'Bob')
    await bob.follow(link, 'Party')
    await bob.say('Hi')
    await ada.sees('Hi')
    await ada.act('Bob', 'Profile')
    await ada.dialog('Profile').getByRole('button', { name: 'Send friend request' }).click()
    await ada.dialog('Profile').getByRole('button', { name: 'Request sent' }).waitFor()
    await ada.page.keyboard.press('Escape')
    await bob.button('Friends').click()
    await bob.button('Accept: Ada').click()
    await bob.button('Message: Ada').click()
    await bob.isIn('Ada')
    await bob.say('Just you and me')
    await ada.roomLink('Bob').click()
    await ada.sees('Just you and me')
    await ada.say('Indeed')
    await bob.sees('Indeed')
    await ada.page.reload()
    await ada.sees('Just you and me')
    await ada.leave()
    await bob.leave()
  })
})
