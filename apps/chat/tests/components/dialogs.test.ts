// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { VueWrapper } from '@vue/test-utils'
import type { Router } from 'vue-router'
import type { Component } from 'vue'
import EmojiButton from '@/components/composer/EmojiButton.vue'
import BrowseDialog from '@/components/dialogs/BrowseDialog.vue'
import CreateRoomDialog from '@/components/dialogs/CreateRoomDialog.vue'
import JoinDialog from '@/components/dialogs/JoinDialog.vue'
import DeviceKeys from '@/components/dialogs/DeviceKeys.vue'
import ProfileDialog from '@/components/dialogs/ProfileDialog.vue'
import ReportDialog from '@/components/dialogs/ReportDialog.vue'
import RecoveryPhrase from '@/components/dialogs/RecoveryPhrase.vue'
import SafetyDialog from '@/components/dialogs/SafetyDialog.vue'
import SettingsDialog from '@/components/dialogs/SettingsDialog.vue'
import SignInList from '@/components/dialogs/SignInList.vue'
import { Failure } from '@/protocol/errors'
import { useOverlayStore } from '@/components/overlay'
import UiConfirm from '@/components/ui/UiConfirm.vue'
import {
  answers,
  calls,
  failure,
  message,
  NO_RIGHTS,
  reset,
  room,
  PHRASE,
  setRooms,
  state,
  useDevicesStore,
  usePushStore,
  useSettingsStore,
} from '../fakes/stores'
import { settle, show } from './mount'

vi.mock('@/stores', () => import('../fakes/stores'))

let wrapper: VueWrapper
let router: Router

beforeEach(reset)
afterEach(() => wrapper.unmount())

async function open(dialog: Component, props: object = {}): Promise<void> {
  ;({ wrapper, router } = await show(dialog, props))
  await settle()
}

const dialog = (): HTMLElement =>
  document.querySelector<HTMLElement>('[role=dialog], [role=alertdialog]') ?? document.body
const said = (): string => dialog().textContent ?? ''
const called = (name: string): unknown[][] => calls.filter((call) => call.name === name).map((call) => call.args)

function button(label: string): HTMLButtonElement {
  const found = [...dialog().querySelectorAll('button')].find(
    (one) => one.textContent?.trim() === label || one.getAttribute('aria-label') === label,
  )
  if (!found) throw new Error(`no button «${label}» in: ${said()}`)
  return found
}

async function fill(label: string, value: string): Promise<void> {
  const tag = [...dialog().querySelectorAll('label')].find((one) => one.textContent?.startsWith(label))
  const input = document.getElementById(tag?.htmlFor ?? '') as HTMLInputElement
  input.value = value
  input.dispatchEvent(new Event('input'))
  await settle()
}

async function submit(): Promise<void> {
  dialog()
    .querySelector('form')
    ?.dispatchEvent(new Event('submit', { cancelable: true }))
  await settle()
  await settle()
}

describe('the dialog for a new room', () => {
  it('asks for a name and a possible group before anything else', async () => {
    await open(CreateRoomDialog)
    await fill('Group', 'no spaces allowed')
    await submit()
    expect(said()).toContain('Enter a name for the room.')
    expect(said()).toContain('letters, digits')
    await fill('Name', 'x'.repeat(33))
    expect(said()).toContain('At most 32 characters.')
    expect(called('create')).toEqual([])
  })

  it('makes the room and goes there', async () => {
    await open(CreateRoomDialog)
    await fill('Name', ' Chess ')
    dialog().querySelectorAll<HTMLElement>('[role=switch]')[1]?.click()
    await fill('Password', 'pawn')
    await fill('Group', 'games')
    await submit()
    expect(called('create')).toEqual([
      [{ name: 'Chess', isPublic: true, encrypted: true, password: 'pawn', namespace: 'games' }],
    ])
    expect(router.currentRoute.value.path).toBe('/chat/r-new')
    expect(wrapper.emitted('close')).toHaveLength(1)
  })

  it('stays and says why when the relay refuses', async () => {
    answers['create'] = failure('forbidden')
    await open(CreateRoomDialog)
    await fill('Name', 'Chess')
    await submit()
    expect(said()).toContain('You do not have permission to do this.')
    expect(wrapper.emitted('close')).toBeUndefined()
  })
})

describe('the dialog of an invitation', () => {
  it('names the room, enters it and goes there', async () => {
    answers['lookUp'] = room({ id: 'r9', name: 'Attic', joined: false })
    await open(JoinDialog, { roomId: 'r9', invited: true })
    expect(said()).toContain('You have been invited to Attic.')
    await submit()
    expect(called('join')).toEqual([['r9']])
    expect(router.currentRoute.value.path).toBe('/chat/r9')
  })

  it('asks for the password, and says at the field that it is wrong', async () => {
    answers['lookUp'] = room({ id: 'r9', hasPassword: true, joined: false })
    answers['join'] = failure('wrongPassword')
    await open(JoinDialog, { roomId: 'r9', invited: true })
    await fill('Room password', 'guess')
    await submit()
    expect(called('join')).toEqual([['r9', 'guess']])
    expect(said()).toContain('Wrong room password.')
    expect(wrapper.emitted('close')).toBeUndefined()
  })

  it('asks for a password that the room got meanwhile', async () => {
    answers['lookUp'] = room({ id: 'r9', joined: false })
    answers['join'] = failure('wrongPassword')
    await open(JoinDialog, { roomId: 'r9', invited: true })
    await submit()
    expect(said()).toContain('This room requires a password.')
    expect(dialog().querySelector('input[type=password]')).not.toBeNull()
  })

  it('says that there is no such room, or that one is banned', async () => {
    await open(JoinDialog, { roomId: 'r9', invited: true })
    expect(said()).toContain('This room does not exist')
    wrapper.unmount()
    answers['lookUp'] = room({ id: 'r9', joined: false })
    answers['join'] = failure('banned')
    await open(JoinDialog, { roomId: 'r9', invited: true })
    await submit()
    expect(said()).toContain('You are banned from this room.')
  })
})

describe('browsing', () => {
  beforeEach(() => {
    setRooms(room({ id: 'a', name: 'Attic' }), room({ id: 'b', name: 'Barn', joined: false, hasPassword: true }))
  })

  it('lists and filters, opens what is joined and asks before the rest', async () => {
    await open(BrowseDialog)
    expect(said()).toContain('Attic')
    await fill('Search by name', 'bar')
    expect(said()).not.toContain('Attic')
    button('Join: Barn').click()
    expect(useOverlayStore().current).toEqual({ kind: 'join', roomId: 'b', invited: false })
    await fill('Search by name', '')
    button('Open: Attic').click()
    await settle()
    expect(router.currentRoute.value.path).toBe('/chat/a')
  })

  it('takes an invitation, and says when it is none', async () => {
    await open(BrowseDialog)
    await fill('Invitation link or room ID', 'https://evil.example/')
    dialog()
      .querySelector('form')
      ?.dispatchEvent(new Event('submit', { cancelable: true }))
    await settle()
    expect(said()).toContain('This is not an invitation link or a room ID.')
    await fill('Invitation link or room ID', 'https://chat.example/?join=r9')
    await submit()
    expect(useOverlayStore().current).toEqual({ kind: 'join', roomId: 'r9', invited: true })
  })
})

describe('a question', () => {
  it('does it and closes', async () => {
    const run = vi.fn(() => Promise.resolve())
    await open(UiConfirm, { title: 'Delete?', text: 'For good.', action: 'Delete', run })
    expect(dialog().getAttribute('role')).toBe('alertdialog')
    button('Delete').click()
    await settle()
    expect(run).toHaveBeenCalledOnce()
    expect(wrapper.emitted('close')).toHaveLength(1)
  })

  it('stays open and says what went wrong', async () => {
    const run = () => Promise.reject(failure('timeout'))
    await open(UiConfirm, { title: 'Delete?', text: 'For good.', action: 'Delete', run })
    button('Delete').click()
    await settle()
    expect(said()).toContain('The server did not respond in time.')
    expect(wrapper.emitted('close')).toBeUndefined()
  })
})

describe('safety numbers', () => {
  it('show both, and the one before where it has changed', async () => {
    state.keyChanges = [
      {
        roomId: 'r1',
        userId: 'u-ada',
        name: 'Ada',
        oldFingerprint: '0000 1111',
        newFingerprint: '2222 3333',
        account: false,
      },
    ]
    await open(SafetyDialog, { roomId: 'r1', userId: 'u-ada', name: 'Ada' })
    expect(said()).toContain('2222 3333')
    expect(said()).toContain('0000 1111')
    expect(said()).toContain('fe9d 9259')
    button('They match: accept the new key').click()
    await settle()
    expect(called('acceptKey')).toEqual([['r1', 'u-ada']])
  })

  it('say when no key was seen', async () => {
    await open(SafetyDialog, { roomId: 'r1', userId: 'u-ada', name: 'Ada' })
    expect(said()).toContain('This person has not published a key')
  })
})

describe('devices in the settings', () => {
  const devices = useDevicesStore() as { -readonly [K in keyof ReturnType<typeof useDevicesStore>]: unknown }

  it('ask for the keys where they are missing, and show the code', async () => {
    devices.hasAccountKey = false
    await open(DeviceKeys)
    button('Get the keys from another device').click()
    expect(called('askForKeys')).toHaveLength(1)
    const asking = { url: 'https://chat.test/chat#link-0123456789abcdef-0', received: false }
    devices.asking = { ...asking, code: null }
    await settle()
    await settle()
    expect(dialog().querySelector('svg.qr')?.getAttribute('aria-label')).toBe('QR code for linking this device')
    expect(said()).toContain('Open the settings on another device')
    devices.asking = { ...asking, code: '123456' }
    await settle()
    expect(said()).toContain('123 456')
    button('Cancel').click()
    expect(called('stopAsking')).toHaveLength(1)
    devices.asking = { ...asking, code: '123456', received: true }
    await settle()
    await fill('Code on the other device', '654 321')
    await submit()
    expect(called('confirmKeys')).toEqual([['654 321']])
    devices.asking = null
    devices.askFailure = { kind: 'timeout', reason: 'linkOver', detail: '' }
    await settle()
    expect(said()).toContain('The request for the keys has ended.')
  })

  it('restore the keys from a phrase, and say why it is none', async () => {
    devices.hasAccountKey = false
    devices.backup = 'none'
    await open(DeviceKeys)
    expect(said()).not.toContain('Recovery phrase')
    devices.backup = 'locked'
    await settle()
    answers.recover = new Failure('invalid', '', { reason: 'notAPhrase' })
    await fill('Recovery phrase', 'some words')
    await submit()
    expect(said()).toContain('This is not a recovery phrase.')
    delete answers.recover
    await submit()
    expect(called('recover')).toEqual([['some words'], ['some words']])
  })

  it('hand the keys over once the code of the other device was typed', async () => {
    devices.offers = [{ id: 'l1', name: 'Safari · iPhone', ready: true, scanned: false, invited: false }]
    await open(DeviceKeys)
    expect(said()).toContain('Safari · iPhone asks for the keys')
    button('Hand over the keys').click()
    await settle()
    expect(button('Send the keys').disabled).toBe(true)
    await fill('Code on the other device', '123 456')
    answers.handOver = new Failure('invalid', '', { reason: 'wrongCode' })
    await submit()
    expect(called('handOver')).toEqual([['l1', '123 456']])
    expect(said()).toContain('Wrong code.')
    delete answers.handOver
    button('Hand over the keys').click()
    await settle()
    await fill('Code on the other device', '123 456')
    await submit()
    expect(said()).toContain('Type this code on the new device')
    expect(said()).toContain('654 321')
  })

  it('hand the keys over without a code where the QR code was scanned, but not unasked', async () => {
    devices.offers = [{ id: 'l1', name: 'Safari · iPhone', ready: false, scanned: true, invited: false }]
    await open(DeviceKeys)
    expect(said()).toContain('You have scanned its code.')
    expect(called('handOverScanned')).toEqual([])
    button('Send the keys').click()
    await settle()
    expect(called('handOverScanned')).toEqual([['l1']])
  })

  it('show a QR code to a new device, and ask the one whose code was scanned, but not unasked', async () => {
    devices.offers = []
    await open(DeviceKeys)
    button('Link a new device').click()
    expect(called('invite')).toEqual([[true]])
    devices.invitation = 'https://chat.test/chat#link-0123456789abcdef-0'
    await settle()
    expect(dialog().querySelector('svg.qr')?.getAttribute('aria-label')).toBe('QR code for linking a new device')
    devices.invitation = null
    devices.hasAccountKey = false
    devices.hasScanned = true
    await settle()
    expect(said()).toContain('You have scanned the code of another device.')
    expect(called('askScanned')).toEqual([])
    button('Take the keys').click()
    await settle()
    expect(called('askScanned')).toHaveLength(1)
    devices.hasScanned = false
  })

  it('ask two words of a new recovery phrase back before it is used', async () => {
    await open(RecoveryPhrase)
    button('Create a recovery phrase').click()
    await settle()
    expect([...dialog().querySelectorAll('ol li')].map((item) => item.textContent)).toEqual(PHRASE)
    button('I have written them down').click()
    await settle()
    const numbers = [...dialog().querySelectorAll('label')].map((tag) => Number(tag.textContent?.split(' ')[1]))
    expect(new Set(numbers).size).toBe(2)
    await submit()
    expect(said()).toContain('These are not the right words.')
    for (const number of numbers) await fill(`Word ${number}`, PHRASE[number - 1]!.toUpperCase())
    await submit()
    expect(called('startBackup')).toEqual([[PHRASE]])
    expect(said()).not.toContain(PHRASE[0]!)
  })

  it('sign another device out, but not this one', async () => {
    await open(SignInList)
    expect(said()).toContain('this device')
    button('End session: Unnamed device').click()
    await settle()
    expect(called('endSignIn')).toEqual([['fedcba9876543210']])
    expect(dialog().querySelectorAll('li button')).toHaveLength(1)
  })
})

describe('the profile of somebody in the room', () => {
  const present = { userId: 'u-bob', name: 'Bob', idMark: '', color: '#2563eb', status: 'online', self: false } as const
  const bob = { ...present, joinedAt: 0, account: false, role: 'member' as const }
  const offered = () => ['Remove from room', 'Ban', 'Lift ban'].filter((label) => said().includes(label))

  it('offers what one may do to them', async () => {
    state.present = [bob]
    await open(ProfileDialog, { userId: 'u-bob', roomId: 'r1' })
    expect(offered()).toEqual([])
    wrapper.unmount()
    state.rights = { ...NO_RIGHTS, kick: true, ban: true }
    await open(ProfileDialog, { userId: 'u-bob', roomId: 'r1' })
    expect(offered()).toEqual(['Remove from room', 'Ban'])
    button('Ban').click()
    expect(useOverlayStore().current).toMatchObject({ kind: 'confirm', title: 'Ban Bob?' })
    wrapper.unmount()
    // Who is away can be banned, who is banned let in again, and the creator neither.
    state.present = []
    state.away = [{ ...present, role: 'member' }]
    await open(ProfileDialog, { userId: 'u-bob', roomId: 'r1' })
    expect(offered()).toEqual(['Ban'])
    wrapper.unmount()
    state.bans = [{ userId: 'u-bob', name: 'Bob', bannedBy: 'u-me', timestamp: 0 }]
    await open(ProfileDialog, { userId: 'u-bob', roomId: 'r1' })
    expect(offered()).toEqual(['Lift ban'])
    button('Lift ban').click()
    await settle()
    expect(called('unban')).toEqual([['r1', 'u-bob']])
    wrapper.unmount()
    state.bans = []
    state.present = [{ ...bob, role: 'creator' }]
    await open(ProfileDialog, { userId: 'u-bob', roomId: 'r1' })
    expect(offered()).toEqual([])
  })
})

describe('the settings', () => {
  it('change theme and language at once', async () => {
    await open(SettingsDialog)
    const dark = dialog().querySelector<HTMLInputElement>('input[value=dark]')
    dark?.dispatchEvent(new Event('change'))
    expect(useSettingsStore().theme).toBe('dark')
    const select = dialog().querySelector('select')!
    select.value = 'de'
    select.dispatchEvent(new Event('change'))
    expect(useSettingsStore().locale).toBe('de')
  })

  it('change a quick reaction; one that is chosen twice changes places', async () => {
    await open(SettingsDialog)
    const quick = wrapper.findAllComponents(EmojiButton)
    expect(quick.map((one) => one.text())).toEqual(['👍️', '❤️', '😂', '🎉', '😮', '😢'])
    quick[1]!.vm.$emit('pick', '🦄')
    quick[0]!.vm.$emit('pick', '😢')
    expect(useSettingsStore().quickEmojis).toEqual(['😢', '🦄', '😂', '🎉', '😮', '👍️'])
  })

  it('turn push messages on by a click, and say why they cannot', async () => {
    await open(SettingsDialog)
    expect(called('turn')).toEqual([])
    const toggle = (): HTMLElement =>
      [...dialog().querySelectorAll<HTMLElement>('[role=switch]')].find((each) =>
        each.closest('label, div')?.textContent?.includes('while the app is closed'),
      )!
    toggle().click()
    expect(called('turn')).toEqual([[true]])
    Object.assign(usePushStore(), { state: 'blocked' })
    await settle()
    expect(said()).toContain('The browser blocks notifications')
    Object.assign(usePushStore(), { state: 'unavailable' })
    await settle()
    expect(said()).not.toContain('while the app is closed')
  })

  it('ask before signing out, with a warning for guests', async () => {
    await open(SettingsDialog)
    button('Sign out').click()
    const question = useOverlayStore().current
    expect(question?.kind === 'confirm' && question.text).toContain('You are a guest')
    expect(called('logout')).toEqual([])
    if (question?.kind === 'confirm') await question.run()
    expect(called('logout')).toHaveLength(1)
    expect(router.currentRoute.value.name).toBe('landing')
  })
})

describe('a report', () => {
  it('sends the message with a reason, and says what went wrong', async () => {
    const reported = message({ name: 'Mallory', text: 'Rude words' })
    await open(ReportDialog, { message: reported })
    expect(said()).toContain('Rude words')
    await fill('What is wrong', 'Insults')
    answers['report'] = failure('forbidden', 'No reports here.')
    await submit()
    expect(said()).toContain('No reports here.')
    expect(wrapper.emitted('close')).toBeUndefined()
    delete answers['report']
    await submit()
    expect(called('report').at(-1)).toEqual([reported, 'Insults'])
    expect(wrapper.emitted('close')).toHaveLength(1)
  })
})
