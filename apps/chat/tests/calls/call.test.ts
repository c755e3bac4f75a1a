import { beforeEach, describe, expect, it } from 'vitest'
import type { IceGrant } from '@/protocol/auth'
import { Failure } from '@/protocol/errors'
import { breathe } from '../support/clock'
import { OneCall, mailbox, place } from './line'
import { installStreams } from './webrtc'

installStreams()

const BOB = { name: 'Bob', avatarColor: '#2a9d8f', userId: 'bob', joinedAt: 1, negotiates: true }
const OFFER = { from: 's-9', userId: 'bob', type: 'offer', sdp: { type: 'offer', sdp: 'v=0' } }

let one: OneCall

beforeEach(() => {
  one = new OneCall()
})

const kindOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => null,
    (failure: Failure) => failure.kind,
  )

describe('joining a call', () => {
  it('needs a connection to the relay', async () => {
    one.line.status.sessionId = null
    expect(await kindOf(one.call.start())).toBe('offline')
    expect([one.line.sent, one.line.listening]).toEqual([[], []])
  })

  it('ends where it is left before the relay has answered', async () => {
    let answer = (): void => undefined
    one.line.gate = new Promise((resolve) => (answer = resolve))
    const joining = kindOf(one.call.start())
    one.call.leave()
    answer()
    expect(await joining).toBe('conflict')
    // Nobody was told that this browser is there, but for the null of its leaving.
    expect(one.line.to(place('s-5'))).toEqual([null])
    expect(one.line.listening).toEqual([])
    one.call.leave()
    one.call.beat()
    one.call.update()
    one.call.updateTracks()
    expect(one.line.to(place('s-5'))).toEqual([null])
  })

  it('ends where it is left while the servers are asked for', async () => {
    let answer: (grant: IceGrant | null) => void = () => undefined
    one.grant = () => new Promise((resolve) => (answer = resolve))
    const joining = one.call.start()
    await breathe(1)
    one.call.leave()
    answer(null)
    await joining
    expect([one.call.hasRelay, one.network.connections, one.clock.waiting]).toEqual([false, [], 0])
  })

  it('hears what was said to it before it knew the servers, and nothing but signals', async () => {
    let answer: (grant: IceGrant | null) => void = () => undefined
    one.grant = () => new Promise((resolve) => (answer = resolve))
    const joining = one.call.start()
    await breathe(1)
    one.see('s-9', BOB)
    one.line.deliver(mailbox('s-5'), { ...OFFER, from: 's-404' })
    one.line.deliver(mailbox('s-5'), { from: 's-9', type: 'something' })
    one.line.deliver(mailbox('s-5'), OFFER, 'snapshot')
    for (let n = 0; n < 500; n++) {
      const candidate = { candidate: `candidate:${n}`, sdpMid: '0', sdpMLineIndex: 0 }
      one.line.deliver(mailbox('s-5'), { from: 's-9', type: 'ice-candidate', candidate })
    }
    expect(one.network.connections).toHaveLength(0)
    answer(null)
    await joining
    await breathe()
    expect([...one.call.peers.keys()]).toEqual(['s-9'])
    expect(one.call.hasRelay).toBe(false)
  })
})

describe('the servers', () => {
  it('are used with and without credentials', async () => {
    const servers = [
      { urls: ['turn:t'], username: 'u', credential: 'c' },
      { urls: ['stun:s'], username: '', credential: '' },
    ]
    one.grant = async () => ({ servers, expiresAtMs: one.clock.now() + 600_000 })
    one.see('s-9', BOB)
    await one.call.start()
    expect(one.network.connections[0]?.configuration.iceServers).toEqual([
      { urls: ['turn:t'], username: 'u', credential: 'c' },
      { urls: ['stun:s'] },
    ])
    expect(one.call.hasRelay).toBe(true)
  })

  it('that cannot be had are asked for again, and those of before are used until then', async () => {
    let asked = 0
    const servers = [{ urls: ['turn:t'], username: 'u', credential: 'c' }]
    one.grant = async () => {
      asked += 1
      if (asked % 2 === 1) throw new Failure('network', 'no')
      return { servers, expiresAtMs: one.clock.now() }
    }
    await one.call.start()
    expect([asked, one.call.hasRelay]).toEqual([1, false])
    await one.clock.pass(31_000, 1_000)
    expect([asked, one.call.hasRelay]).toEqual([2, true])
    // Renewed at once by what the server says, but not more often than every ten seconds.
    await one.clock.pass(11_000, 1_000)
    expect([asked, one.call.hasRelay]).toEqual([3, true])
    one.see('s-9', BOB)
    expect(one.network.connections[0]?.configuration.iceServers).toHaveLength(1)
    one.call.leave()
    await one.clock.pass(60_000, 1_000)
    expect(asked).toBe(3)
  })

  it('are asked for once where the relay has none', async () => {
    let asked = 0
    one.grant = async () => {
      asked += 1
      return null
    }
    await one.call.start()
    await one.clock.pass(120_000, 10_000)
    expect(asked).toBe(1)
  })
})

describe('a call', () => {
  it('goes on where a renewal is lost, and ends where it is refused', async () => {
    await one.call.start()
    one.line.refusal = new Failure('network', 'lost')
    one.call.beat()
    await breathe(1)
    expect(one.ends).toEqual([])
    one.line.refusal = new Failure('forbidden', 'banned')
    one.call.beat()
    await breathe(1)
    expect([one.ends, one.line.listening]).toEqual([['refused'], []])
    one.call.beat()
    await breathe(1)
    expect(one.ends).toHaveLength(1)
  })

  it('ends after a reconnect where the relay refuses it, and waits where there is no connection yet', async () => {
    await one.call.start()
    one.line.status.sessionId = null
    await one.call.rejoin()
    expect(one.ends).toEqual([])
    one.line.status.sessionId = 's-6'
    one.line.refusal = new Failure('forbidden', 'banned')
    await one.call.rejoin()
    expect(one.ends).toEqual(['refused'])
    expect(one.line.to(place('s-5')).at(-1)).toBe(null)
  })

  it('that was never joined is rejoined like one that was, without a place to give back', async () => {
    await one.call.rejoin()
    expect(one.line.sent.map(({ address, value }) => [address, value !== null])).toEqual([[place('s-5'), true]])
  })

  it('connects a caller whose first signal comes before the next look at the roster', async () => {
    await one.call.start()
    one.roster.hear({ address: place('s-9'), value: BOB, kind: 'set', ageMs: null, atMs: null })
    one.line.deliver(mailbox('s-5'), OFFER)
    expect([...one.call.peers.keys()]).toEqual(['s-9'])
  })

  it('lets somebody who was removed back in only when they are back in the room', async () => {
    one.see('s-9', BOB)
    await one.call.start()
    expect(one.call.peers.size).toBe(1)
    one.call.eject('bob')
    one.call.readmit('carol')
    one.see('s-9', BOB)
    expect(one.call.peers.size).toBe(0)
    one.call.readmit('bob')
    expect(one.call.peers.size).toBe(1)
    // Who left in between, and comes as another session, was not removed as that.
    one.call.eject('bob')
    one.see('s-9', null)
    one.see('s-8', BOB)
    expect([...one.call.peers.keys()]).toEqual(['s-8'])
  })

  it('does not connect who is blocked, nor a signal in their name', async () => {
    one.blocked.add('bob')
    one.see('s-9', BOB)
    await one.call.start()
    one.line.deliver(mailbox('s-5'), OFFER)
    expect(one.call.peers.size).toBe(0)
  })
})
