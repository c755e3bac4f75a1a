/** Takes the keys that another device of the same account handed over, by a link or in a backup. */
import { publicJwkOf } from '@/crypto/exchange'
import { Failure } from '@/protocol/errors'
import { readBundle } from '@/storage/keyBundle'
import { storeRings } from '@/storage/keyRings'
import type { Runtime } from '../runtime'

/** Rejects with `invalid` if the text is no bundle of keys. */
export async function takeBundle(runtime: Runtime, text: string): Promise<void> {
  const bundle = await readBundle(text)
  if (!bundle) throw new Failure('invalid', 'what the other device sent is no bundle of keys')
  const added = await storeRings(runtime.storage, bundle.rings, { send: true })
  const { publicKey } = bundle.account
  const held = await runtime.device.accountPair()
  const isKnown = held && (await publicJwkOf(held.publicKey)).x === (await publicJwkOf(publicKey)).x
  if (!isKnown) await runtime.device.takeAccount(bundle.account)
  for (const [roomId, count] of added) if (count > 0) await runtime.rooms.get(roomId)?.sync()
}
