import { defineStore } from 'pinia'
import { computed, shallowReactive, shallowRef } from 'vue'
import { isDeviceOf, signDevice } from '@/crypto/devices'
import { address, parseAddress, pattern } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import { asValue, parseDevice, type DeviceRecord } from '@/protocol/shapes'
import { useRuntime } from './runtime'
import type { Device } from './types'

/** The devices of this user. One that has the account key confirms others, by signing their records. */
export const useDevicesStore = defineStore('devices', () => {
  const runtime = useRuntime()
  const records = shallowReactive(new Map<string, { record: DeviceRecord; confirmed: boolean }>())
  const mayConfirm = shallowRef(false)

  const devices = computed(() =>
    [...records]
      .map(([deviceId, { record, confirmed }]): Device => {
        const current = runtime.begun && deviceId === runtime.identity.deviceId
        return { deviceId, name: record.name, createdAt: record.createdAt, confirmed, current }
      })
      .sort((one, other) => Number(other.current) - Number(one.current) || other.createdAt - one.createdAt),
  )

  async function hear({ address: from, value }: Update): Promise<void> {
    const place = parseAddress(from)
    if (place?.kind !== 'device') return
    const { userId, deviceId } = place
    const record = parseDevice(value)
    if (!record) {
      records.delete(deviceId)
      return
    }
    runtime.directory.forget(userId)
    const account = await runtime.directory.account(userId)
    const confirmed = account !== null && (await isDeviceOf(account, userId, deviceId, record))
    records.set(deviceId, { record, confirmed })
    if (runtime.begun && deviceId === runtime.identity.deviceId)
      mayConfirm.value = confirmed && (await runtime.device.accountPair()) !== null
  }

  /** Signs another device: what it writes is this user's for everybody. */
  async function confirm(deviceId: string): Promise<void> {
    const pair = await runtime.device.accountPair()
    const found = records.get(deviceId)
    if (!pair || !found) throw new Failure('missing', `no account key, or no device ${deviceId}`)
    const { userId } = runtime.self
    const sig = await signDevice(pair.privateKey, userId, found.record)
    await runtime.connection.set(address.device(userId, deviceId), asValue({ ...found.record, sig }))
  }

  runtime.on('begin', ({ userId }) => runtime.listenTo(pattern.devices(userId), (update) => void hear(update)))
  runtime.on('end', () => {
    records.clear()
    mayConfirm.value = false
  })

  return { devices, mayConfirm: computed(() => mayConfirm.value), confirm }
})
