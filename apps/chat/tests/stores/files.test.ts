import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { FileInfo } from '@/protocol/shapes'
import { breathe } from '../support/clock'
import type { Tester } from '../support/person'
import { World } from './world'

const plain = (text: string, name = 'notes.txt', type = 'text/plain'): File => new File([text], name, { type })

describe('files', () => {
  let world: World
  let alice: Tester
  let bob: Tester

  // Loaded on demand otherwise, which takes as long as it takes.
  beforeAll(() => import('@/crypto/fileSeal'))
  beforeEach(async () => {
    world = new World()
    alice = await world.person('Alice')
    bob = await world.person('Bob')
  })

  async function pass(): Promise<void> {
    for (let turn = 0; turn < 5; turn += 1) {
      await breathe()
      await world.pass(200)
    }
  }

  const last = (person: Tester, roomId: string) => person.messages.timeline(roomId).at(-1)
  const fileOf = (person: Tester, roomId: string): FileInfo => last(person, roomId)!.file!
  const stored = (): string[] => [...world.files.kept.values()].map((bytes) => new TextDecoder().decode(bytes))

  it('are sent into an open room, and read there', async () => {
    const roomId = await world.room(alice, [bob])
    expect(alice.files.enabled).toBe(true)
    alice.files.send(roomId, plain('hello'), { text: 'look' })
    expect(alice.files.uploads(roomId)).toMatchObject([{ name: 'notes.txt', state: expect.any(String) as string }])
    await pass()
    expect(alice.files.uploads(roomId)).toEqual([])
    expect(stored()).toEqual(['hello'])
    expect(last(bob, roomId)).toMatchObject({ text: 'look', kind: 'text', verification: 'verified' })
    const blob = await bob.files.open(fileOf(bob, roomId))
    expect(await blob.text()).toBe('hello')
    expect(blob.type).toBe('application/octet-stream')
  })

  it('are told by name to apps that know none, and by fields to ours', async () => {
    const roomId = await world.room(alice, [bob])
    alice.files.send(roomId, plain('x', 'voice.webm', 'audio/webm;codecs=opus'), { seconds: 2, waveform: [1, 2] })
    await pass()
    const [value] = world.emitted(`/chat/room/${roomId}/messages`) as { text: string; file: object }[]
    expect(value).toMatchObject({ text: '📎 voice.webm', type: 'text' })
    expect(value!.file).toMatchObject({ name: 'voice.webm', type: 'audio/webm', size: 1, seconds: 2, waveform: [1, 2] })
    expect(value!.file).not.toHaveProperty('key')
    expect((await bob.files.open(fileOf(bob, roomId))).type).toBe('audio/webm')
  })

  it('in an encrypted room are unreadable for the relay, name and type, too', async () => {
    const roomId = await world.room(alice, [bob], { encrypted: true })
    alice.files.send(roomId, plain('top secret', 'secret-plan.txt'))
    await pass()
    expect(stored().join()).not.toContain('secret')
    expect(JSON.stringify(world.emitted(`/chat/room/${roomId}/messages`))).not.toContain('secret')
    expect(fileOf(bob, roomId)).toMatchObject({ name: 'secret-plan.txt', size: 10 })
    expect(await (await bob.files.open(fileOf(bob, roomId))).text()).toBe('top secret')
  })

  it('that were changed on the relay are not opened', async () => {
    const roomId = await world.room(alice, [bob])
    alice.files.send(roomId, plain('hello'))
    await pass()
    const file = fileOf(bob, roomId)
    world.files.kept.set(file.id, new TextEncoder().encode('jello'))
    await expect(bob.files.open(file)).rejects.toMatchObject({ reason: 'fileDamaged' })
    await bob.files.save(file)
    expect(bob.notifications.notices.at(-1)).toMatchObject({ key: 'reasons.fileDamaged' })
    world.files.kept.set(file.id, new TextEncoder().encode('hello'))
    expect(await (await bob.files.open(file)).text()).toBe('hello')
    world.files.kept.delete(file.id)
    expect(await (await bob.files.open(file)).text()).toBe('hello')
    await expect(alice.files.open(file)).rejects.toMatchObject({ reason: 'fileGone' })
  })

  it('whose connection broke off are sent again when it is back, in order', async () => {
    const roomId = await world.room(alice, [bob])
    world.files.answers.push('cut')
    alice.files.send(roomId, plain('one', 'one'))
    alice.files.send(roomId, plain('two', 'two'))
    await pass()
    expect(alice.files.uploads(roomId)).toMatchObject([
      { name: 'one', state: 'waiting', sent: 0 },
      { name: 'two', state: 'waiting' },
    ])
    alice.listeners.wake()
    await pass()
    expect(bob.messages.timeline(roomId).flatMap(({ file }) => file?.name ?? [])).toEqual(['one', 'two'])
  })

  it('that the relay refuses say why, and can be tried again or given up', async () => {
    const roomId = await world.room(alice, [bob])
    world.files.answers.push({ status: 507, error: 'Full.' }, { status: 429, error: 'Yours is full.' })
    alice.files.send(roomId, plain('x', 'one'))
    alice.files.send(roomId, plain('y', 'two'))
    await pass()
    const [one, two] = alice.files.uploads(roomId)
    expect(one).toMatchObject({ state: 'failed', failure: { reason: 'relayFull' } })
    expect(two).toMatchObject({ state: 'failed', failure: { reason: 'filesFull' } })
    alice.files.cancel(two!.id)
    alice.files.retry(one!.id)
    await pass()
    expect(alice.files.uploads(roomId)).toEqual([])
    expect(stored()).toEqual(['x'])
  })

  it('that are given up on their way are not sent, and the next one is', async () => {
    const roomId = await world.room(alice, [bob])
    world.files.answers.push('hang')
    alice.files.send(roomId, plain('one', 'one'))
    alice.files.send(roomId, plain('two', 'two'))
    await pass()
    const [one] = alice.files.uploads(roomId)
    expect(one).toMatchObject({ state: 'sending', sent: 1.5 })
    alice.files.cancel(one!.id)
    await pass()
    expect(stored()).toEqual(['two'])
    expect(bob.messages.timeline(roomId).flatMap(({ file }) => file?.name ?? [])).toEqual(['two'])
  })

  it.each([
    ['', 'emptyFile'],
    ['x'.repeat(1001), 'fileTooBig'],
  ])('of a size that the relay does not take are not sent', async (content, reason) => {
    const roomId = await world.room(alice, [])
    alice.files.send(roomId, plain(content))
    await pass()
    expect(alice.files.uploads(roomId)).toMatchObject([{ state: 'failed', failure: { reason } }])
  })

  it('are not offered where the relay takes none', async () => {
    world.files.bounds = null
    const carol = await world.person('Carol')
    expect(carol.files.enabled).toBe(false)
    const roomId = await world.room(carol, [])
    carol.files.send(roomId, plain('x'))
    await pass()
    expect(carol.files.uploads(roomId)).toMatchObject([{ failure: { reason: 'noFiles' } }])
  })

  it('are encrypted anew if the encryption was turned on meanwhile', async () => {
    const roomId = await world.room(alice, [bob])
    const live = alice.runtime.rooms.get(roomId)!
    const states = vi.spyOn(live, 'encryption', 'get')
    states.mockReturnValueOnce('off').mockReturnValue('ready')
    alice.files.send(roomId, plain('secret'))
    await pass()
    expect(stored()).toHaveLength(1)
    expect(stored().join()).not.toContain('secret')
    states.mockRestore()
  })

  it('go with their message, from the relay, too; nobody else deletes them', async () => {
    const roomId = await world.room(alice, [bob])
    alice.files.send(roomId, plain('hello'))
    await pass()
    const message = last(alice, roomId)!
    expect(alice.messages.canEdit(message)).toBe(false)
    await world.done(alice.messages.remove(roomId, message.msgId))
    await pass()
    expect(stored()).toEqual([])
    expect(last(bob, roomId)).toMatchObject({ deleted: true })
    expect(last(bob, roomId)).not.toHaveProperty('file')
  })
})
