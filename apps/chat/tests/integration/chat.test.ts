import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { IDBFactory } from 'fake-indexeddb'
import { systemClock } from '@/protocol/clock'
import { makePerson, type Tester } from '../support/person'
import { canRun, connect, startRelay, until, type RealRelay } from './relay'

let relay: RealRelay
let count = 0

beforeAll(async () => {
  if (canRun) relay = await startRelay()
})
afterAll(async () => {
  if (canRun) await relay.stop()
})

function newcomer(name: string): Tester {
  const world = { clock: systemClock, connect, relayUrl: relay.url, authBase: relay.auth, fetch }
  count += 1
  return makePerson(world, name, `person-${count}`)
}

async function guest(name: string): Promise<Tester> {
  const tester = newcomer(name)
  await tester.session.continueAsGuest(name)
  await until(() => tester.connection.online, `${name} is online`)
  return tester
}

const id = (tester: Tester): string => tester.session.userId
const texts = (tester: Tester, roomId: string) => tester.messages.timeline(roomId).map((message) => message.text)
const inside = (tester: Tester, roomId: string) =>
  until(() => tester.rooms.byId[roomId]?.access === 'inside', `${tester.name} is inside`)

async function says(tester: Tester, roomId: string, text: string): Promise<void> {
  await tester.messages.send(roomId, { text })
  await until(() => tester.messages.timeline(roomId).at(-1)?.delivery === 'confirmed', `${text} is confirmed`)
}

const hears = (tester: Tester, roomId: string, text: string) =>
  until(() => texts(tester, roomId).includes(text), `${tester.name} hears ${text}`)

describe.skipIf(!canRun)('with the relay under the chat policy', () => {
  it('a second device of an account gets its keys by a code, and is signed out by the first', async () => {
    const alice = newcomer('Alice L')
    await alice.session.register('Alice L', 'password')
    await until(() => alice.devices.mayConfirm, 'the account key is there')
    const roomId = await alice.rooms.create({ name: 'Linked', isPublic: false, encrypted: true })
    await inside(alice, roomId)
    await says(alice, roomId, 'before')
    const { indexedDB: first } = globalThis
    globalThis.indexedDB = new IDBFactory()
    const second = newcomer('Alice L')
    await second.session.login('Alice L', 'password')
    globalThis.indexedDB = first
    await until(() => second.devices.hasAccountKey === false, 'the second device has no keys')
    await second.devices.askForKeys()
    await until(() => alice.devices.offers.length === 1, 'the first device is asked')
    const offer = alice.devices.offers[0]!.id
    await alice.devices.answer(offer)
    await until(() => second.devices.asking?.code !== null, 'the code shows')
    await until(() => alice.devices.offers[0]?.ready === true, 'the first device can compare')
    const back = await alice.devices.handOver(offer, second.devices.asking!.code!)
    await until(() => second.devices.asking?.received === true, 'the keys have arrived')
    await second.devices.confirmKeys(back)
    await until(() => second.devices.mayConfirm, 'the second device has the account key')
    await until(() => second.rooms.byId[roomId]?.encryption === 'ready', 'and the key of the room')
    await alice.devices.startBackup(await alice.devices.newPhrase())
    expect(alice.devices.backup).toBe('kept')
    await alice.devices.loadSignIns()
    const other = alice.devices.signIns!.find(({ current }) => !current)!
    expect(alice.devices.signIns!.map(({ device }) => device)).toEqual(['Test', 'Test'])
    await alice.devices.endSignIn(other.id)
    expect(alice.devices.signIns).toHaveLength(1)
    await until(() => alice.devices.devices.length === 1, 'the device ended with its session')
    await until(() => second.connection.phase === 'refused', 'the second device is signed out')
  })

  it('guests talk in a public room, and their signatures verify', async () => {
    const [alice, bob] = [await guest('Alice A'), await guest('Bob A')]
    const roomId = await alice.rooms.create({ name: 'Open', isPublic: true, encrypted: false })
    await until(() => bob.rooms.publicRooms.some((room) => room.id === roomId), 'Bob finds the room')
    await bob.rooms.join(roomId)
    await Promise.all([inside(alice, roomId), inside(bob, roomId)])
    await says(alice, roomId, 'hello')
    await hears(bob, roomId, 'hello')
    await until(() => bob.messages.timeline(roomId)[0]?.verification === 'verified', 'it is verified')
    await says(bob, roomId, 'hi')
    await hears(alice, roomId, 'hi')
    await bob.messages.react(roomId, alice.messages.timeline(roomId)[0]!.msgId, '🎉')
    await until(() => alice.messages.timeline(roomId)[0]!.reactions.length === 1, 'the reaction shows')
    await alice.rooms.rename(roomId, 'Renamed')
    await until(() => bob.rooms.byId[roomId]!.name === 'Renamed', 'the new name shows')
    await until(() => alice.members.present(roomId).length === 2, 'both are there')
  })

  it('somebody in many rooms hears of those without subscriptions of their own', async () => {
    const [alice, bob] = [await guest('Alice M'), await guest('Bob M')]
    const first = await alice.rooms.create({ name: 'First', isPublic: false, encrypted: true })
    const rest = Array.from({ length: 20 }, (_, at) => ({ name: `Room ${at}`, isPublic: true, encrypted: false }))
    for (const each of rest) await alice.rooms.create(each)
    await inside(alice, first)
    expect(alice.runtime.rooms.get(first)!.awake).toBe(false)
    await bob.rooms.join(first)
    await until(() => bob.rooms.byId[first]?.encryption === 'ready', 'Bob gets the key of a room that was asleep')
    for (const each of alice.rooms.joined.slice(0, 20)) alice.rooms.activate(each.id)
    alice.rooms.activate(null)
    await says(bob, first, 'are you there?')
    await until(() => alice.rooms.byId[first]!.unread === 1, 'Alice hears it')
  })

  it('a newcomer gets the key of an encrypted room and what was said there', async () => {
    const [alice, bob] = [await guest('Alice B'), await guest('Bob B')]
    const roomId = await alice.rooms.create({ name: 'Secret', isPublic: false, encrypted: true })
    await inside(alice, roomId)
    await says(alice, roomId, 'before')
    await bob.rooms.join(roomId)
    await until(() => bob.rooms.byId[roomId]?.encryption === 'ready', 'Bob has the key')
    await says(bob, roomId, 'mine')
    await hears(alice, roomId, 'mine')
    await hears(bob, roomId, 'before')
    expect(alice.messages.timeline(roomId).at(-1)).toMatchObject({ secrecy: 'encrypted' })
  })

  it('a password opens a room, a wrong one does not, and a new one shuts the old out', async () => {
    const [alice, bob] = [await guest('Alice C'), await guest('Bob C')]
    const roomId = await alice.rooms.create({ name: 'Locked', isPublic: true, encrypted: true, password: 'sesame' })
    await inside(alice, roomId)
    expect(await bob.rooms.lookUp(roomId)).toMatchObject({ hasPassword: true })
    await expect(bob.rooms.join(roomId, 'wrong')).rejects.toMatchObject({ kind: 'wrongPassword' })
    await expect(bob.rooms.join(roomId)).rejects.toMatchObject({ kind: 'wrongPassword' })
    await bob.rooms.join(roomId, 'sesame')
    await until(() => bob.rooms.byId[roomId]?.encryption === 'ready', 'Bob has the key')
    await says(alice, roomId, 'welcome')
    await hears(bob, roomId, 'welcome')
    await alice.rooms.setPassword(roomId, 'other')
    await says(alice, roomId, 'after')
    bob.runtime.rooms.get(roomId)?.beat()
    await until(() => bob.rooms.byId[roomId]?.access === 'passwordNeeded', 'Bob is asked again')
    expect(texts(bob, roomId)).not.toContain('after')
    await bob.rooms.join(roomId, 'other')
    await inside(bob, roomId)
    await says(alice, roomId, 'again')
    await hears(bob, roomId, 'again')
  })

  it('a kick and a ban have effect', async () => {
    const [alice, bob] = [await guest('Alice D'), await guest('Bob D')]
    const roomId = await alice.rooms.create({ name: 'Strict', isPublic: true, encrypted: false })
    await bob.rooms.join(roomId)
    await Promise.all([inside(alice, roomId), inside(bob, roomId)])
    await until(() => alice.members.present(roomId).length === 2, 'both are there')
    await alice.members.kick(roomId, id(bob))
    await until(() => bob.rooms.byId[roomId]?.joined === false, 'Bob is out')
    await bob.rooms.join(roomId)
    await inside(bob, roomId)
    await until(() => alice.members.present(roomId).length === 2, 'both are there again')
    await alice.members.ban(roomId, id(bob))
    await until(() => bob.rooms.byId[roomId]?.joined === false, 'Bob is out again')
    await bob.rooms.join(roomId)
    await until(() => bob.rooms.byId[roomId]?.access === 'banned', 'Bob stays out')
    await alice.members.unban(roomId, id(bob))
    await until(() => alice.members.bans(roomId).length === 0, 'the ban is lifted')
    bob.runtime.rooms.get(roomId)?.beat()
    await inside(bob, roomId)
  })

  it('friends write to each other, also what was said while one was away', async () => {
    const [alice, bob] = [await guest('Alice E'), await guest('Bob E')]
    await alice.friends.request(id(bob))
    await until(() => bob.friends.incoming.length === 1, 'the request arrives')
    await bob.friends.accept(id(alice))
    await until(() => alice.friends.isFriend(id(bob)) && bob.friends.isFriend(id(alice)), 'they are friends')
    await until(() => bob.friends.incoming.length === 0, 'the request is gone')
    const roomId = await alice.friends.openDirectMessage(id(bob))
    await inside(alice, roomId)
    await until(() => bob.rooms.directMessages.length === 1, 'Bob sees it')
    await says(alice, roomId, 'psst')
    await hears(bob, roomId, 'psst')
  })

  it('what was said and edited while nobody else is there comes from the relay', async () => {
    const [alice, bob] = [await guest('Alice H'), await guest('Bob H')]
    const roomId = await alice.rooms.create({ name: 'Kept', isPublic: true, encrypted: false })
    await bob.rooms.join(roomId)
    await inside(bob, roomId)
    await says(alice, roomId, 'one')
    await hears(bob, roomId, 'one')
    await bob.runtime.end(false)
    await alice.messages.edit(roomId, alice.messages.timeline(roomId).find(({ text }) => text === 'one')!.msgId, 'two')
    await says(alice, roomId, 'three')
    await alice.runtime.end(false)
    await bob.session.restore()
    await bob.runtime.begin(id(bob))
    await hears(bob, roomId, 'three')
    await hears(bob, roomId, 'two')
    expect(texts(bob, roomId)).not.toContain('one')
  })

  it('a guest who registers keeps everything, and comes back after signing out', async () => {
    const alice = await guest('Alice F')
    const userId = id(alice)
    const roomId = await alice.rooms.create({ name: 'Kept', isPublic: true, encrypted: false })
    const other = newcomer('Other')
    await other.session.continueAsGuest('Somebody')
    await alice.session.register('alice-f', 'secret words')
    expect(id(alice)).toBe(userId)
    expect(alice.session.guest).toBe(false)
    expect(alice.rooms.joined.map((room) => room.id)).toEqual([roomId])
    await until(() => alice.connection.online, 'Alice is online again')
    await expect(other.session.register('ALICE-F', 'secret words')).rejects.toMatchObject({ kind: 'nameTaken' })
    await expect(other.session.login('alice-f', 'wrong words')).rejects.toMatchObject({ kind: 'credentials' })
    await expect(alice.session.changePassword('wrong', 'secret word')).rejects.toMatchObject({ kind: 'credentials' })
    await alice.session.changePassword('secret words', 'new words')
    await alice.session.logout()
    expect(alice.session.signedIn).toBe(false)
    await alice.session.login('alice-f', 'new words')
    expect(id(alice)).toBe(userId)
    await until(() => alice.connection.online, 'Alice is back')
  })

  it('nothing is lost when the relay restarts', async () => {
    const [alice, bob] = [await guest('Alice G'), await guest('Bob G')]
    const roomId = await alice.rooms.create({ name: 'Lasting', isPublic: true, encrypted: true })
    await bob.rooms.join(roomId)
    await until(() => bob.rooms.byId[roomId]?.encryption === 'ready', 'Bob has the key')
    await says(alice, roomId, 'one')
    texts(bob, roomId)
    const restarted = relay.restart()
    await until(() => !alice.connection.online, 'the relay is gone')
    await alice.messages.send(roomId, { text: 'two' })
    expect(alice.messages.timeline(roomId).at(-1)).toMatchObject({ text: 'two', delivery: 'queued' })
    await restarted
    await until(() => alice.messages.timeline(roomId).at(-1)?.delivery === 'confirmed', 'it gets through', 40_000)
    await hears(bob, roomId, 'two')
  })
})
