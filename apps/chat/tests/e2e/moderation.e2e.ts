import { readFile } from 'node:fs/promises'
import { ClaspBuilder, type Clasp, type Value } from '@clasp-to/core'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { launch, Person } from './people'
import { Relay } from './relay'

/** A text as the relay has it: nobody without the key reads it. */
interface Sealed {
  readonly text: string
  readonly iv: string
  readonly keyId: string
}

const isSealed = (value: unknown): value is Sealed =>
  typeof value === 'object' && value !== null && 'iv' in value && 'keyId' in value && 'text' in value

/** Runs in a page: decrypts with all room keys that its browser keeps; null: none of them fits. */
async function tryAllKeys({ text, iv }: Sealed): Promise<string | null> {
  const bytes = (base64: string): Uint8Array<ArrayBuffer> => Uint8Array.from(atob(base64), (one) => one.charCodeAt(0))
  const done = <T>(request: IDBRequest<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result)
      request.onerror = () => reject(request.error ?? new Error('the database cannot be read'))
    })
  const names = (await indexedDB.databases()).flatMap(({ name }) =>
    name?.startsWith('clasp-relay-chat-') ? [name] : [],
  )
  for (const name of names) {
    const database = await done(indexedDB.open(name))
    const records: { keys: { jwk: JsonWebKey }[] }[] = await done(
      database.transaction('crypto').objectStore('crypto').getAll(),
    )
    database.close()
    for (const { jwk } of records.flatMap(({ keys }) => keys)) {
      const key = await crypto.subtle.importKey('jwk', jwk, 'AES-GCM', false, ['decrypt'])
      const clear = await crypto.subtle.decrypt({ name: 'AES-GCM', iv: bytes(iv) }, key, bytes(text)).catch(() => null) // another key's
      if (clear) return new TextDecoder().decode(clear)
    }
  }
  return null
}

describe('whoever is removed from an encrypted room', () => {
  let browser: Browser
  let relay: Relay
  let watcher: Clasp
  const sealed: Sealed[] = []

  beforeAll(async () => {
    ;[browser, relay] = await Promise.all([launch(), Relay.start()])
    // The library takes the browser's socket, which older versions of Node do not have.
    Object.assign(globalThis, { WebSocket })
    const token = (await readFile(relay.tokenFile, 'utf8')).trim()
    watcher = await new ClaspBuilder(relay.socket).withName('Watcher').withToken(token).connect()
    watcher.on('/chat/room/*/messages', (value: Value) => {
      if (isSealed(value)) sealed.push(value)
    })
  })
  afterAll(async () => {
    await watcher.close()
    await browser.close()
    await relay.stop()
  })

  /** Says something, waits until the other one reads it, and returns it as the relay passed it on. */
  async function told(by: Person, text: string, reader: Person): Promise<Sealed> {
    const before = sealed.length
    await by.say(text)
    await reader.sees(text)
    await expect.poll(() => sealed.length, { timeout: 60_000 }).toBeGreaterThan(before)
    return sealed.at(-1) as Sealed
  }

  it('has no key of what is said afterwards, removed or banned, and gets the new one when let in again', async () => {
    const ada = await Person.guest(browser, relay.origin, 'Ada')
    await ada.createRoom({ name: 'Vault', isPublic: false, encrypted: true })
    const link = await ada.inviteLink()
    const [bob, eve] = [
      await Person.guest(browser, relay.origin, 'Bob'),
      await Person.guest(browser, relay.origin, 'Eve'),
    ]
    await bob.follow(link, 'Vault')
    await eve.follow(link, 'Vault')
    const first = await told(ada, 'For all three', eve)
    await bob.sees('For all three')
    expect(await bob.page.evaluate(tryAllKeys, first)).toBe('For all three')

    await ada.act('Bob', 'Remove from room')
    await ada.confirm('Remove from room')
    await bob.page.getByText('You are not a member of this room.').waitFor()
    const second = await told(ada, 'Without the one who was removed', eve)
    expect(second.keyId).not.toBe(first.keyId)
    expect(await eve.page.evaluate(tryAllKeys, second)).toBe('Without the one who was removed')
    expect(await bob.page.evaluate(tryAllKeys, second)).toBeNull()

    await bob.follow(link, 'Vault')
    const third = await told(ada, 'Back again', bob)
    expect(await bob.page.evaluate(tryAllKeys, third)).toBe('Back again')
    await ada.act('Bob', 'Ban')
    await ada.confirm('Ban')
    await bob.page.getByText(/You are (banned from|not a member of) this room/).waitFor()
    const fourth = await told(ada, 'Without the one who is banned', eve)
    expect([first.keyId, second.keyId, third.keyId]).not.toContain(fourth.keyId)
    expect(await bob.page.evaluate(tryAllKeys, fourth)).toBeNull()

    await ada.button('Lift ban: Bob').click()
    await bob.follow(link, 'Vault')
    await bob.sees('Without the one who is banned')
    const fifth = await told(bob, 'Here I am', ada)
    await eve.sees('Here I am')
    expect(await eve.page.evaluate(tryAllKeys, fifth)).toBe('Here I am')
    expect([...ada.complaints, ...bob.complaints, ...eve.complaints]).toEqual([])
    for (const person of [ada, bob, eve]) await person.leave()
  })
})
