import { defineStore } from 'pinia'
import { computed, shallowReactive, shallowRef } from 'vue'
import { isDeviceOf, signDevice } from '@/crypto/devices'
import { newPhrase } from '@/crypto/phrase'
import type { FailureWords } from '@/i18n/failures'
import { linkFragment, parseAddress, parseLinkFragment, pattern } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import { parseDevice, type DeviceRecord } from '@/protocol/shapes'
import { DeviceLink, type Invitation, type LinkOffer } from './live/deviceLink'
import { KeyBackup } from './live/keyBackup'
import { useNotificationsStore } from './notifications'
import { useRuntime } from './runtime'
import type { BackupState, Device, DevicesStore, SignIn } from './types'

/** The devices of this user, and how the keys of the account get from one to another. */
export const useDevicesStore = defineStore('devices', () => {
  const runtime = useRuntime()
  const notifications = useNotificationsStore()
  const records = shallowReactive(new Map<string, { record: DeviceRecord; confirmed: boolean }>())
  const hasAccountKey = shallowRef<boolean | null>(null)
  const mayConfirm = shallowRef(false)
  const asking = shallowRef<DevicesStore['asking']>(null)
  /** What a QR code said that was scanned on this device. */
  const scan = shallowRef<Invitation | null>(null)
  /** What the QR code says that this device shows to a new one. */
  const invitation = shallowRef<Invitation | null>(null)
  const askFailure = shallowRef<FailureWords | null>(null)
  const offers = shallowRef<readonly LinkOffer[]>([])
  const backupState = shallowRef<BackupState>('unknown')
  const signIns = shallowRef<readonly SignIn[] | null>(null)

  const link = new DeviceLink(runtime, {
    onAsking: (state, failure) => {
      asking.value = state && { ...state, url: urlOf(state) }
      askFailure.value = failure
    },
    onOffers: (list) => takeOffers(list),
  })
  const backup = new KeyBackup(runtime, (state) => (backupState.value = state))

  const urlOf = ({ id, secret }: Invitation): string => `${runtime.platform.origin}/chat${linkFragment(id, secret)}`

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
    if (!record || record.endedAt !== null) {
      records.delete(deviceId)
      if (record) runtime.directory.forget(userId)
      return
    }
    runtime.directory.forget(userId)
    const account = await runtime.directory.account(userId)
    const confirmed = account !== null && (await isDeviceOf(account, userId, deviceId, record))
    // Meanwhile the session may have ended, or be another user's.
    if (!runtime.begun || runtime.storage.userId !== userId) return
    records.set(deviceId, { record, confirmed })
    if (deviceId !== runtime.identity.deviceId) return
    hasAccountKey.value = (await runtime.device.accountPair()) !== null
    mayConfirm.value = confirmed && hasAccountKey.value
  }

  /** Signs another device: what it writes is this user's for everybody. */
  async function confirm(deviceId: string): Promise<void> {
    const pair = await runtime.device.accountPair()
    const found = records.get(deviceId)
    if (!pair || !found) throw new Failure('missing', `no account key, or no device ${deviceId}`)
    const { userId } = runtime.self
    const sig = await signDevice(pair.privateKey, userId, found.record)
    await runtime.device.publishRecord(deviceId, { ...found.record, sig })
  }

  /** Only a device that has the keys can hand them over, and says so. */
  function takeOffers(list: readonly LinkOffer[]): void {
    const known = new Set(offers.value.map(({ id }) => id))
    for (const { id, name } of mayConfirm.value ? list : [])
      if (!known.has(id)) notifications.notify({ kind: 'info', key: 'notices.linkAsked', params: { name } })
    offers.value = list
  }

  /** The fragment of the page's URL may be that of a QR code; resolves with whether it was. */
  function takeFragment(hash: string): boolean {
    scan.value = parseLinkFragment(hash) ?? scan.value
    return parseLinkFragment(hash) !== null
  }

  async function handOverScanned(id: string): Promise<void> {
    const code = [scan.value, invitation.value].find((each) => each?.id === id)
    if (!code) throw new Failure('missing', `link ${id} was not scanned`, { reason: 'linkOver' })
    scan.value = null
    invitation.value = null
    await link.handOverScanned(id, code.secret)
  }

  /** Asks the device for the keys whose QR code was scanned here. */
  async function askScanned(): Promise<void> {
    const { value } = scan
    if (!value) throw new Failure('missing', 'no QR code was scanned', { reason: 'linkOver' })
    scan.value = null
    await link.ask(value)
  }

  async function startOver(): Promise<void> {
    await runtime.device.replaceAccount()
    hasAccountKey.value = true
  }

  // --- sign-ins ---

  async function loadSignIns(): Promise<void> {
    const list = await runtime.auth.sessions(runtime.token ?? '')
    signIns.value = list
    // A session that ended without a word, or elsewhere, ends its device, too.
    const ids = new Set(list.map(({ id }) => id))
    if (list.some(({ current }) => current)) await endDevices((session) => !ids.has(session))
  }

  /** Marks the devices of sessions that have ended. */
  async function endDevices(hasEnded: (session: string) => boolean): Promise<void> {
    const endedAt = Math.round(runtime.connection.serverNow())
    const gone = [...records].filter(
      ([deviceId, { record }]) =>
        deviceId !== runtime.identity.deviceId && record.session !== null && hasEnded(record.session),
    )
    await Promise.all(
      gone.map(([deviceId, { record }]) => runtime.device.publishRecord(deviceId, { ...record, endedAt })),
    )
  }

  async function endSignIn(id: string): Promise<void> {
    await runtime.auth.endSession(runtime.token ?? '', id)
    await endDevices((session) => session === id)
    await loadSignIns()
  }

  runtime.on('begin', ({ userId }) => {
    runtime.listenTo(pattern.devices(userId), (update) => void hear(update))
    link.begin()
  })
  // Without a connection nothing is known; the next one asks again.
  runtime.on('online', () => void backup.look().catch(() => undefined))
  runtime.on('keysStored', () => runtime.leads && backup.touch())
  runtime.on('end', () => {
    link.end()
    backup.end()
    records.clear()
    hasAccountKey.value = null
    mayConfirm.value = false
    offers.value = []
    scan.value = null
    invitation.value = null
    signIns.value = null
  })

  return {
    devices,
    hasAccountKey: computed(() => hasAccountKey.value),
    mayConfirm: computed(() => mayConfirm.value),
    confirm,
    asking: computed(() => asking.value),
    askFailure: computed(() => askFailure.value),
    askForKeys: () => link.ask(),
    stopAsking: () => link.cancel(),
    confirmKeys: (code: string) => link.confirmKeys(code),
    startOver,
    takeFragment,
    hasScanned: computed(() => hasAccountKey.value === false && scan.value !== null),
    askScanned,
    invitation: computed(() => invitation.value && urlOf(invitation.value)),
    invite: (on: boolean) => void (invitation.value = on ? link.newInvitation() : null),
    offers: computed(() =>
      (mayConfirm.value ? offers.value : []).map((offer) => {
        const invited = offer.id === invitation.value?.id
        return { ...offer, invited, scanned: invited || offer.id === scan.value?.id }
      }),
    ),
    answer: (id: string) => link.answer(id),
    handOver: (id: string, code: string) => link.handOver(id, code),
    handOverScanned,
    backup: computed(() => backupState.value),
    newPhrase: (): Promise<readonly string[]> => newPhrase(),
    startBackup: (words: readonly string[]) => backup.create(words),
    recover: (phrase: string) => backup.recover(phrase),
    signIns: computed(() => signIns.value),
    loadSignIns,
    endSignIn,
  }
})
