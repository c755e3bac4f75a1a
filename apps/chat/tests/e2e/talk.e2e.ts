import { fileURLToPath, URL } from 'node:url'
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { launch, Person } from './people'
import { Relay } from './relay'

const PICTURE = fileURLToPath(new URL('../../public/icons/icon-512.png', import.meta.url))

describe('talking', () => {
  let browser: Browser
  let relay: Relay
  let ada: Person
  let bob: Person

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
  })
  afterAll(async () => {
    await browser.close()
    await relay.stop()
  })
  afterEach(async () => {
    expect([...ada.complaints, ...bob.complaints]).toEqual([])
    await ada.leave()
    await bob.leave()
  })

  async function meet(room = 'Garden', options: { encrypted?: boolean } = {}): Promise<string> {
    ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: room, isPublic: false, ...options })
    const link = await ada.inviteLink()
    bob = await Person.arrive(browser, relay.origin)
    await bob.page.goto(link)
    await bob.enterAs('Bob')
    await bob.acceptInvitation()
    await bob.isIn(room)
    return link
  }

  it('goes both ways between a guest and one who followed the link without an account', async () => {
    await meet()
    await ada.say('Hello **Bob**', 'Hello Bob')
    await bob.sees('Hello Bob')
    await bob.say('Hello Ada')
    await ada.sees('Hello Ada')
    await ada.isDelivered('Hello Bob')
  })

  it('shows hostile text as text: nothing in it runs or is fetched', async () => {
    await meet()
    const foreign: string[] = []
    bob.page.on('request', (request) => {
      if (!request.url().startsWith(relay.origin) && /^https?:/.test(request.url())) foreign.push(request.url())
    })
    await ada.say(
      '<img src="https://tracker.example/x.png" onerror="document.title=1"> <script>document.title=2</script>',
    )
    await ada.composer.fill('![x](https://tracker.example/y.png) [click](javascript:document.title=3) **end**')
    await ada.composer.press('Enter')
    await bob.sees('<img src=')
    await bob.sees('end')
    expect(await bob.page.locator('[role=log] :is(img, script, [href^="javascript:"])').count()).toBe(0)
    expect(foreign).toEqual([])
    expect(await bob.page.title()).toContain('CLASP Chat')
  })

  it('shows a room with its messages again after a reload, and goes on', async () => {
    await meet()
    await ada.say('Before the reload')
    await bob.sees('Before the reload')
    await bob.page.reload()
    await bob.isIn('Garden')
    await bob.sees('Before the reload')
    await ada.say('After the reload')
    await bob.sees('After the reload')
  })

  it('changes and deletes a message on both screens, and keeps that', async () => {
    await meet()
    await ada.say('First version')
    await bob.sees('First version')
    await ada.choose('First version', 'Edit')
    await ada.composer.fill('Second version')
    await ada.composer.press('Enter')
    await bob.sees('Second version')
    await bob.sees('(edited)')
    await ada.choose('Second version', 'Delete')
    await ada.confirm('Delete')
    await bob.sees('This message was deleted.')
    await bob.page.reload()
    await bob.sees('This message was deleted.')
  })

  it('quotes a message, and a press on the quote leads to it', async () => {
    await meet()
    await ada.say('What is the time?')
    await bob.sees('What is the time?')
    await bob.choose('What is the time?', 'Reply')
    await bob.composer.fill('Half past nine')
    await bob.composer.press('Enter')
    await ada.sees('Half past nine')
    await ada.message('Half past nine').getByTitle('Go to the quoted message').click()
    await ada.page.locator('article.flash', { hasText: 'What is the time?' }).waitFor()
  })

  it('counts a reaction on both screens and takes it back', async () => {
    await meet()
    await ada.say('We won')
    await bob.sees('We won')
    await bob.message('We won').hover()
    await bob.message('We won').getByRole('button', { name: 'Add a reaction' }).click()
    await bob.pickEmoji('party popper')
    await ada.message('We won').getByRole('button', { name: '🎉, 1: Bob' }).click()
    await bob.message('We won').getByRole('button', { name: /🎉, 2/ }).click()
    await ada
      .message('We won')
      .getByRole('button', { name: /🎉, 1: / })
      .waitFor()
  })

  it('sends an image with the words for those who cannot see it, and opens it large', async () => {
    await meet()
    await ada.page.locator('input[type=file]').setInputFiles(PICTURE)
    await ada.page.getByLabel('Image description').fill('The sign of the app')
    await ada.composer.fill('Look')
    await ada.composer.press('Enter')
    const image = bob.page.getByRole('img', { name: 'The sign of the app' })
    await image.waitFor()
    expect(await image.getAttribute('src')).toMatch(/^data:image\//)
    await bob.button('Open image: The sign of the app').click()
    await bob.dialog('Image').waitFor()
  })

  it('counts what is unread and who is mentioned elsewhere, until it is read', async () => {
    await meet()
    await bob.createRoom({ name: 'Elsewhere', isPublic: false })
    await ada.say('One')
    await bob.roomLink('Garden').getByText('1 unread message').waitFor()
    await ada.say('@Bob two')
    await bob.roomLink('Garden').getByText('1 mention').waitFor()
    await bob.openRoom('Garden')
    await bob.sees('@Bob two')
    await bob
      .roomLink('Garden')
      .getByText(/unread|mention/)
      .waitFor({ state: 'detached' })
  })

  it('is encrypted, and a newcomer gets the key and what was said before', async () => {
    const link = await meet('Vault', { encrypted: true })
    await ada.say('A secret')
    await bob.sees('A secret')
    await bob.say('Kept')
    await ada.sees('Kept')
    const eve = await Person.guest(browser, relay.origin, 'Eve')
    await eve.follow(link, 'Vault')
    await ada.say('Welcome')
    await eve.sees('Welcome')
    await eve.sees('A secret')
    await ada.openPanel('Security')
    await ada.page.getByText('Messages are end-to-end encrypted.').waitFor()
    await eve.leave()
  })

  it('is the same in two tabs of one person, who is there once', async () => {
    await meet()
    const tab = await bob.otherTab(new URL(bob.page.url()).pathname)
    await tab.isIn('Garden')
    await ada.say('To both tabs')
    await Promise.all([bob.sees('To both tabs'), tab.sees('To both tabs')])
    await tab.say('From the second')
    await Promise.all([ada.sees('From the second'), bob.sees('From the second')])
    await ada.page.getByText('2 online').waitFor()
    await tab.page.close()
    await ada.say('Still there?')
    await bob.sees('Still there?')
  })
})
