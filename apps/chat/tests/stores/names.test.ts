import { beforeEach, describe, expect, it } from 'vitest'
import { lookOf, markOf, namesakesOf } from '@/stores/names'
import type { Tester } from '../support/person'
import { World } from './world'

describe('the look of a name', () => {
  it('is the same for names that nobody tells apart', () => {
    for (const name of ['anna', ' ANNA ', 'Аnnа', 'An\u200bna', 'Ánna', 'Ann\u0430', 'A\u202enna', '\uff21nna'])
      expect([name, lookOf(name)]).toEqual([name, lookOf('Anna')])
    expect(lookOf('Paul')).toBe(lookOf('Pau1'))
    expect(lookOf('Igor')).toBe(lookOf('lgor'))
    expect(lookOf('Tom')).toBe(lookOf('T0rn'))
    expect(lookOf('Anna  Maria')).toBe(lookOf('Anna\u00a0Maria'))
  })

  it('is another one for other names', () => {
    const looks = ['Anna', 'Annabel', 'Ann', 'Bob', 'Борис', '安娜', 'Anna B', '🙂', 'Hanna'].map(lookOf)
    expect(new Set(looks).size).toBe(looks.length)
  })

  it('is computed anew after very many names, the same', () => {
    const before = lookOf('Anna')
    for (let number = 0; number < 6_000; number += 1) lookOf(`Guest ${number}`)
    expect(lookOf('Anna')).toBe(before)
  })
})

describe('a mark', () => {
  it('is a piece of the id, where another one has a name like it', () => {
    const namesakes = namesakesOf([
      ['0123456789', { name: 'Anna' }],
      ['abcdef0123', { name: 'anna' }],
      ['ffffffffff', { name: 'Bob' }],
    ])
    expect(markOf(namesakes, '0123456789', 'Anna')).toBe('012345')
    expect(markOf(namesakes, 'abcdef0123', 'anna')).toBe('abcdef')
    expect(markOf(namesakes, 'ffffffffff', 'Bob')).toBe('')
    expect(markOf(namesakes, 'somebody who is gone', 'Bob')).toBe('somebo')
    expect(markOf(namesakes, 'carol', 'Carol')).toBe('')
  })
})

describe('two people whose names look the same', () => {
  let world: World
  let alice: Tester
  let tom: Tester
  let roomId: string

  beforeEach(async () => {
    world = new World()
    alice = await world.person('Alice')
    tom = await world.person('Tom')
    roomId = await world.room(alice, [tom])
  })

  const said = (tester: Tester) =>
    tester.messages
      .timeline(roomId)
      .filter(({ kind }) => kind === 'text')
      .map(({ text, idMark }) => [text, idMark])

  it('are told apart in the list and at what they say, from when the second one comes', async () => {
    await world.done(tom.messages.send(roomId, { text: 'I am Tom' }))
    await world.pass(500)
    expect(said(alice)).toEqual([['I am Tom', '']])
    const torn = await world.person('Torn')
    await world.done(torn.rooms.join(roomId))
    await world.done(torn.messages.send(roomId, { text: 'I am Tom, too' }))
    await world.pass(500)
    const [one, other] = [tom, torn].map(({ userId }) => userId.slice(0, 6))
    expect(said(alice)).toEqual([
      ['I am Tom', one],
      ['I am Tom, too', other],
    ])
    // To themselves they are who they are.
    expect(said(tom)).toEqual([
      ['I am Tom', ''],
      ['I am Tom, too', other],
    ])
    const marks = alice.members.present(roomId).map(({ name, idMark }) => [name, idMark])
    expect(Object.fromEntries(marks)).toEqual({ Alice: '', Tom: one, Torn: other })
    await world.done(torn.rooms.leave(roomId))
    await world.pass(500)
    // What the other one said stays marked; who has the name now needs no mark.
    expect(said(alice)).toEqual([
      ['I am Tom', ''],
      ['I am Tom, too', other],
    ])
  })
})
