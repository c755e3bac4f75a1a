/**
 * The backup of the keys of an account, encrypted with the key of a recovery phrase. A device that was given the phrase
 * once keeps the derived key, and writes the backup again when it has new keys.
 */
import { newSalt } from '@/crypto/password'
import { openParts, sealParts } from '@/crypto/link'
import { parsePhrase, phraseKey } from '@/crypto/phrase'
import { address, BACKUP_PLACES, MAX_BACKUP_PARTS } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import { asValue, parseBackupHead, parsePart, type BackupHead } from '@/protocol/shapes'
import { writeBundle } from '@/storage/keyBundle'
import type { BackupState } from '../types'
import type { Runtime } from '../runtime'
import { takeBundle } from './keyHandover'

const STORED = 'backupKey'
const PART_CHARS = 30_000
/** New keys come in groups: they are written together. */
const DELAY_MS = 15_000

interface HeldKey {
  key: CryptoKey
  salt: string
}

export class KeyBackup {
  private held: HeldKey | null = null
  private stopWaiting: (() => void) | null = null
  /** What the backup has. */
  private written = ''
  private running: Promise<void> = Promise.resolve()

  constructor(
    private readonly runtime: Runtime,
    private readonly onState: (state: BackupState) => void,
  ) {}

  /** Looks whether there is a backup, and whether this device can write it. */
  async look(): Promise<void> {
    const stored = (await this.runtime.storage.value(STORED)) as HeldKey | undefined
    const head = await this.head()
    this.held = stored && head?.salt === stored.salt ? stored : null
    this.onState(head === null ? 'none' : this.held ? 'kept' : 'locked')
  }

  end(): void {
    this.stopWaiting?.()
    this.stopWaiting = null
    this.held = null
    this.written = ''
    this.onState('unknown')
  }

  /** This device has new keys. */
  touch(): void {
    if (!this.held) return
    this.stopWaiting ??= this.runtime.platform.clock.after(DELAY_MS, () => {
      this.stopWaiting = null
      // The next new key tries again.
      this.running = this.running.then(() => this.write()).catch(() => undefined)
    })
  }

  /** Begins a backup under a phrase; an earlier one is replaced. */
  async create(words: readonly string[]): Promise<void> {
    const salt = newSalt()
    this.held = { key: await phraseKey(words, salt), salt }
    this.written = ''
    await this.write()
    await this.runtime.storage.putValue(STORED, this.held)
    this.onState('kept')
  }

  /** Takes the keys out of the backup. */
  async recover(text: string): Promise<void> {
    const words = await parsePhrase(text)
    if (!words) throw new Failure('invalid', 'not a recovery phrase', { reason: 'notAPhrase' })
    const head = await this.head()
    if (!head) throw new Failure('missing', 'no backup', { reason: 'noBackup' })
    const held = { key: await phraseKey(words, head.salt), salt: head.salt }
    const bundle = await this.read(head, held.key)
    if (bundle === null) throw new Failure('invalid', 'the phrase of another backup', { reason: 'otherPhrase' })
    await takeBundle(this.runtime, bundle)
    this.held = held
    await this.runtime.storage.putValue(STORED, held)
    this.onState('kept')
  }

  private async head(): Promise<BackupHead | null> {
    return parseBackupHead(await this.runtime.connection.get(this.at(0)))
  }

  private async read({ first, parts, tag }: BackupHead, key: CryptoKey): Promise<string | null> {
    const places = Array.from({ length: parts }, (_, part) => this.at(first + part))
    const values = await Promise.all(places.map((place) => this.runtime.connection.get(place)))
    const sealed = values.map(parsePart).filter((part) => part !== null)
    return sealed.length === parts ? openParts(key, tag, sealed) : null
  }

  /** Writes the parts beside those of the backup before, then the head: a reader never finds half of it. */
  private async write(): Promise<void> {
    const { held, runtime } = this
    const account = await runtime.device.accountPair()
    if (!held || !account) throw new Failure('missing', 'no account key')
    const before = await this.head()
    // What other devices have stored since is kept.
    if (before?.salt === held.salt) {
      const bundle = await this.read(before, held.key)
      if (bundle !== null) await takeBundle(runtime, bundle)
    }
    const text = await writeBundle(runtime.storage, account, MAX_BACKUP_PARTS * PART_CHARS)
    if (before?.salt === held.salt && text === this.written) return
    const tag = newSalt()
    const parts = await sealParts(held.key, tag, text)
    const first = this.newPlace(before?.first ?? null)
    await Promise.all(parts.map((part, place) => this.set(first + place, part)))
    const head = { v: 1, salt: held.salt, tag, first, parts: parts.length, at: runtime.platform.clock.now() }
    await this.set(0, head)
    this.written = text
    if (before) await this.clear(before)
  }

  /** Another place than the backup before has; at random, since another device may be writing, too. */
  private newPlace(taken: number | null): number {
    const places = (BACKUP_PLACES - 1) / MAX_BACKUP_PARTS
    const place = Math.floor(this.runtime.platform.random() * places)
    const first = 1 + place * MAX_BACKUP_PARTS
    return first === taken ? 1 + ((place + 1) % places) * MAX_BACKUP_PARTS : first
  }

  private async clear({ first, parts }: BackupHead): Promise<void> {
    await Promise.all(Array.from({ length: parts }, (_, part) => this.set(first + part, null)))
  }

  private at(part: number): string {
    return address.backup(this.runtime.self.userId, part)
  }

  private set(part: number, value: object | null): Promise<void> {
    return this.runtime.connection.set(this.at(part), value && asValue(value))
  }
}
