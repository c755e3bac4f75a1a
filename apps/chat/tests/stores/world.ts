/** A relay in memory, a clock, and people who meet there; new ones in every test. */
import type { Value } from '@/protocol/codec'
import { IDBFactory } from 'fake-indexeddb'
import { breathe, FakeClock } from '../support/clock'
import { makePerson, MemoryStorage, type Tester } from '../support/person'
import { FakeFiles } from '../support/files'
import { FakeRelay } from '../support/relay'
import type { CallPlatform, Platform } from '@/stores/platform'

let worlds = 0

export class World {
  readonly clock = new FakeClock()
  readonly relay = new FakeRelay((callback) => queueMicrotask(callback), this.clock.now)
  readonly files = new FakeFiles()
  // Databases last as long as the process: every world has people of its own.
  private readonly number = ++worlds

  id(name: string): string {
    return `${name.toLowerCase()}-${this.number}`
  }

  make(
    name: string,
    local = new MemoryStorage(),
    calls: CallPlatform | null = null,
    fetch?: Platform['fetch'],
  ): Tester {
    const world = {
      clock: this.clock,
      connect: this.relay.connect,
      ...this.files.doors,
      calls: () => calls,
      ...(fetch && { fetch }),
    }
    return makePerson(world, name, this.id(name), local)
  }

  async person(name: string, local = new MemoryStorage()): Promise<Tester> {
    const tester = this.make(name, local)
    await tester.start()
    await this.pass(500)
    return tester
  }

  /** Another browser of somebody: nothing is stored in it yet. */
  async device(of: Tester, name = of.name): Promise<Tester> {
    const { indexedDB: first } = globalThis
    globalThis.indexedDB = new IDBFactory()
    const tester = makePerson({ clock: this.clock, connect: this.relay.connect }, name, of.userId)
    await tester.start()
    await this.pass(500)
    globalThis.indexedDB = first
    return tester
  }

  /** Does something that ends when the relay has answered. */
  async done<T>(doing: Promise<T>, ms = 500): Promise<T> {
    const [result] = await Promise.allSettled([doing, this.pass(ms)])
    if (result.status === 'rejected') throw result.reason
    return result.value
  }

  pass(ms: number): Promise<void> {
    return this.clock.pass(ms)
  }

  /** A room with its creator and others inside, shown on everybody's screen. */
  async room(
    creator: Tester,
    others: Tester[],
    part: { encrypted?: boolean; isPublic?: boolean } = {},
  ): Promise<string> {
    const roomId = await this.done(creator.rooms.create({ name: 'Den', isPublic: true, encrypted: false, ...part }))
    for (const other of others) await this.done(other.rooms.join(roomId))
    await this.pass(4_000)
    for (const tester of [creator, ...others]) tester.messages.timeline(roomId)
    await breathe()
    return roomId
  }

  /** What is stored below an address. */
  stored(prefix: string): Record<string, Value> {
    const found = [...this.relay.params].filter(([address]) => address.startsWith(prefix))
    return Object.fromEntries(found.map(([address, { value }]) => [address, value]))
  }

  /** What was emitted at an address. */
  emitted(address: string): Value[] {
    return this.relay.published.filter((each) => each.address === address).map((each) => each.value)
  }
}
