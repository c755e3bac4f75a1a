// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { nextTick } from 'vue'
import type { VueWrapper } from '@vue/test-utils'
import ConnectionBanner from '@/components/ConnectionBanner.vue'
import { useOverlayStore } from '@/components/overlay'
import KeyNotices from '@/components/room/KeyNotices.vue'
import PanelPeople from '@/components/room/PanelPeople.vue'
import PanelSecurity from '@/components/room/PanelSecurity.vue'
import PanelSettings from '@/components/room/PanelSettings.vue'
import { rowsOf } from '@/components/room/timelineRows'
import RoomView from '@/components/room/RoomView.vue'
import TypingLine from '@/components/room/TypingLine.vue'
import SideBar from '@/components/sidebar/SideBar.vue'
import UiToasts from '@/components/ui/UiToasts.vue'
import { i18n, setLanguage } from '@/i18n'
import {
  answers,
  calls,
  failure,
  ME,
  message,
  NO_RIGHTS,
  reset,
  room,
  setRooms,
  state,
  useConnectionStore,
  useFriendsStore,
  useNotificationsStore,
  type ConnectionStore,
  type Friend,
  type Member,
  type SystemLine,
} from '../fakes/stores'
import { settle, show } from './mount'

vi.mock('@/stores', () => import('../fakes/stores'))

let wrapper: VueWrapper

beforeEach(reset)
afterEach(() => {
  wrapper.unmount()
  vi.useRealTimers()
})

const called = (name: string): unknown[][] => calls.filter((call) => call.name === name).map((call) => call.args)
const member = (change: Partial<Member> = {}): Member => ({
  userId: 'u-bob',
  name: 'Bob',
  idMark: '',
  color: '#2563eb',
  role: 'member',
  status: 'online',
  self: false,
  joinedAt: 0,
  account: false,
  ...change,
})

describe('the list of rooms', () => {
  it('marks kinds, counts what is unread, and puts mentions first', async () => {
    setRooms(
      room({ id: 'a', name: 'Attic', unread: 3 }),
      room({ id: 'b', name: 'Barn', unread: 9, mentions: 2 }),
      room({ id: 'v', name: 'Viewing', type: 'video' }),
      room({ id: 'c', name: 'Cabin', type: 'combo', unread: 120, muted: true }),
      room({ id: 'd', name: 'Grace', type: 'dm' }),
    )
    ;({ wrapper } = await show(SideBar))
    expect(wrapper.findAll('h2').map((title) => title.text())).toEqual([
      'Rooms',
      'Video rooms',
      'Video and text',
      'Direct messages',
    ])
    expect(wrapper.get('[data-room=a]').text()).toContain('3 unread messages')
    expect(wrapper.get('[data-room=b]').text()).toContain('2 mentions')
    expect(wrapper.get('[data-room=c]').text()).toContain('99+')
  })

  it('finds rooms by name', async () => {
    setRooms(room({ id: 'a', name: 'Attic' }), room({ id: 'b', name: 'Barn' }))
    ;({ wrapper } = await show(SideBar))
    await wrapper.get('input').setValue('BAR')
    expect(wrapper.findAll('[data-room]').map((link) => link.attributes('data-room'))).toEqual(['b'])
    await wrapper.get('input').setValue('zzz')
    expect(wrapper.text()).toContain('No room matches.')
  })

  it('finds people and groups, too, and by letters in their order where nothing fits better', async () => {
    setRooms(
      room({ id: 'a', name: 'Backstage garden' }),
      room({ id: 'b', name: 'Garden' }),
      room({ id: 'd', name: 'Grace', type: 'dm', peerId: 'u-grace' }),
    )
    const friend = { color: '#123456', addedAt: 0, online: false }
    ;(useFriendsStore() as { friends: readonly Friend[] }).friends = [
      { ...friend, userId: 'u-grace', name: 'Grace' },
      { ...friend, userId: 'u-gus', name: 'Gus Gardener' },
    ]
    answers.openDirectMessage = 'dm-1'
    const shown = await show(SideBar)
    ;({ wrapper } = shown)
    const found = () => wrapper.findAll('[data-room], [data-person]').map((link) => link.text())
    expect(found()).toHaveLength(3)
    await wrapper.get('input').setValue('gard')
    expect(found().map((text) => text.replace(/^\W*(GG)?/, ''))).toEqual(['Garden', 'Backstage garden', 'Gus Gardener'])
    await wrapper.get('input').setValue('bgn')
    expect(wrapper.findAll('[data-room]').map((link) => link.attributes('data-room'))).toEqual(['a'])
    await wrapper.get('input').setValue('gus')
    await wrapper.get('input').trigger('keydown', { key: 'Enter' })
    await settle()
    expect(called('openDirectMessage')).toEqual([['u-gus']])
    expect(shown.router.currentRoute.value.fullPath).toBe('/chat/dm-1')
  })
})

describe('people in the panel', () => {
  it('offer only what one may do', async () => {
    state.present = [member(), member({ userId: 'u-eve', name: 'Eve', role: 'creator' })]
    state.rights = { ...NO_RIGHTS }
    ;({ wrapper } = await show(PanelPeople, { room: room() }))
    expect(wrapper.text()).not.toContain('Banned')
    wrapper.unmount()
    state.rights = { ...NO_RIGHTS, ban: true }
    state.bans = [{ userId: 'u-x', name: 'Spammer', bannedBy: 'u-me', timestamp: 0 }]
    ;({ wrapper } = await show(PanelPeople, { room: room() }))
    await wrapper.get('button[aria-label="Lift ban: Spammer"]').trigger('click')
    expect(called('unban')).toEqual([['r1', 'u-x']])
  })
})

describe('people with an account', () => {
  it('have a mark that guests have not', async () => {
    state.present = [member({ account: true }), member({ userId: 'u-eve', name: 'Eve' })]
    ;({ wrapper } = await show(PanelPeople, { room: room() }))
    const marked = wrapper.findAll('.person').map((row) => row.find('[aria-label="has an account"]').exists())
    expect(marked).toEqual([true, false])
  })
})

describe('people who are away', () => {
  it('are listed apart, and can be banned, not removed', async () => {
    state.present = [member()]
    state.away = [{ userId: 'u-gus', name: 'Gus', idMark: '', color: '#123456', role: 'admin' }]
    state.rights = { ...NO_RIGHTS, ban: true, kick: true }
    ;({ wrapper } = await show(PanelPeople, { room: room() }))
    const list = wrapper.get('ul[aria-label="Members who are away"]')
    expect(list.text()).toMatch(/Gus\s*Moderator/)
    await wrapper.get('button[aria-label="Actions for Gus"]').trigger('click')
    await settle()
    const entries = [...document.querySelectorAll('[role=menuitem]')].map((item) => item.textContent?.trim())
    expect(entries).toEqual(['Profile', 'Ban'])
  })

  it('are searched where they are many', async () => {
    state.present = [member()]
    state.away = Array.from({ length: 60 }, (_, at) => ({
      userId: `u-${at}`,
      name: `Gone ${at}`,
      idMark: '',
      color: '#123456',
      role: 'member' as const,
    }))
    ;({ wrapper } = await show(PanelPeople, { room: room() }))
    const listed = () => wrapper.findAll('ul[aria-label="Members who are away"] li').length
    expect([listed(), wrapper.text().includes('10 more.')]).toEqual([50, true])
    await wrapper.get('input[type=search]').setValue('gone 59')
    expect(listed()).toBe(1)
    expect(wrapper.text()).not.toContain('No member matches.')
  })
})

describe('a crowd in the panel', () => {
  it('is rendered only as far as it is on screen, and searched by name', async () => {
    state.present = Array.from({ length: 500 }, (_, at) => member({ userId: `u-${at}`, name: `Member ${at}` }))
    ;({ wrapper } = await show(PanelPeople, { room: room() }))
    expect(wrapper.findAll('.person').length).toBeLessThan(60)
    expect(wrapper.get('.people').attributes('style')).toContain(`height: ${500 * 52}px`)
    await wrapper.get('input[type=search]').setValue('member 49')
    // 49 and 490 to 499.
    expect(wrapper.get('.people').attributes('style')).toContain(`height: ${11 * 52}px`)
    await wrapper.get('input[type=search]').setValue('nobody')
    expect(wrapper.text()).toContain('No member matches.')
  })

  it('of a usual size is a plain list', async () => {
    state.present = Array.from({ length: 40 }, (_, at) => member({ userId: `u-${at}`, name: `Member ${at}` }))
    ;({ wrapper } = await show(PanelPeople, { room: room() }))
    expect(wrapper.findAll('.person')).toHaveLength(40)
    expect(wrapper.find('input').exists()).toBe(false)
  })
})

describe('an empty room', () => {
  it('offers to invite somebody, and shows that history is being loaded', async () => {
    ;({ wrapper } = await show(RoomView, { room: room() }))
    expect(wrapper.get('[role=log]').text()).toContain('No messages yet')
    await wrapper.get('[role=log] button').trigger('click')
    expect(useOverlayStore().current).toEqual({ kind: 'invite', roomId: 'r1' })
    state.catchingUp = true
    await settle()
    expect(wrapper.get('[role=log]').text()).toBe('Loading messages…')
  })

  it('and system lines are whole sentences in the language of the interface', async () => {
    state.timeline = [
      message({ kind: 'system', line: { kind: 'joined', params: { name: 'Ada' } } }),
      message({ kind: 'system', line: { kind: 'keyReceived', params: {} } }),
    ]
    const lines = (): string[] => rowsOf(state.timeline, null).flatMap((row) => (row.kind === 'system' ? [t(row)] : []))
    const t = (row: { line: SystemLine }): string => i18n.global.t(`system.${row.line.kind}`, row.line.params)
    expect(lines()).toEqual(['Ada joined.', 'The encryption key of this room has arrived.'])
    await setLanguage('de')
    expect(lines()).toEqual(['Ada ist beigetreten.', 'Der Schlüssel dieses Raums ist angekommen.'])
    await setLanguage('en')
    ;({ wrapper } = await show(PanelPeople, { room: room() }))
  })
})

describe('settings in the panel', () => {
  it('rename the room, and show the old name again when that is refused', async () => {
    state.rights = { ...NO_RIGHTS, rename: true }
    answers['rename'] = failure('forbidden')
    ;({ wrapper } = await show(PanelSettings, { room: room() }))
    const input = wrapper.get<HTMLInputElement>('input[type=text]')
    await input.setValue('Meadow')
    await input.trigger('change')
    await settle()
    expect(called('rename')).toEqual([['r1', 'Meadow']])
    expect(input.element.value).toBe('Garden')
    expect(useNotificationsStore().notices.map((notice) => notice.key)).toEqual(['errors.forbidden'])
  })

  it('offer a member neither a name nor a password nor the end of the room', async () => {
    ;({ wrapper } = await show(PanelSettings, { room: room() }))
    expect(wrapper.find('input').exists()).toBe(false)
    expect(wrapper.text()).not.toContain('Delete room')
  })
})

describe('security in the panel', () => {
  it.each([
    ['off', 'The server operator can read them.'],
    ['ready', 'Only members can read them.'],
    ['waiting', 'has not arrived yet'],
    ['unknown', 'not known yet'],
  ] as const)('tells that encryption is %s', async (encryption, words) => {
    ;({ wrapper } = await show(PanelSecurity, { room: room({ encryption }) }))
    expect(wrapper.text()).toContain(words)
  })

  it('asks before it encrypts for good', async () => {
    state.rights = { ...NO_RIGHTS, encrypt: true }
    ;({ wrapper } = await show(PanelSecurity, { room: room() }))
    await wrapper.get('button').trigger('click')
    const question = useOverlayStore().current
    expect(called('enableEncryption')).toEqual([])
    if (question?.kind === 'confirm') await question.run()
    expect(called('enableEncryption')).toEqual([['r1']])
  })
})

describe('a room on screen', () => {
  it.each([
    ['passwordNeeded', 'requires a password'],
    ['banned', 'You are banned'],
    ['missing', 'no longer exists'],
    ['refused', 'refused access'],
  ] as const)('that is %s says so where one would write', async (access, words) => {
    ;({ wrapper } = await show(RoomView, { room: room({ access }) }))
    expect(wrapper.text()).toContain(words)
    expect(wrapper.find('textarea').exists()).toBe(false)
  })

  it('that one was taken out of offers to come back', async () => {
    ;({ wrapper } = await show(RoomView, { room: room({ joined: false, access: 'unknown' }) }))
    expect(wrapper.get('.closed').text()).toContain('You are not a member of this room.')
    await wrapper.get('.closed button').trigger('click')
    expect(useOverlayStore().current).toEqual({ kind: 'join', roomId: 'r1', invited: false })
  })

  it('shows where files can be dropped for as long as some are dragged over it', async () => {
    vi.useFakeTimers()
    ;({ wrapper } = await show(RoomView, { room: room() }))
    const drag = (types: string[]) => wrapper.get('.room').trigger('dragover', { dataTransfer: { types } })
    await drag(['text/plain'])
    expect(wrapper.find('.drop').exists()).toBe(false)
    await drag(['Files'])
    expect(wrapper.get('.drop').text()).toBe('Drop files to attach them')
    await vi.advanceTimersByTimeAsync(700)
    await drag(['Files'])
    await vi.advanceTimersByTimeAsync(700)
    expect(wrapper.find('.drop').exists()).toBe(true)
    // Escape, or another window: not every end of a drag is told.
    await vi.advanceTimersByTimeAsync(400)
    expect(wrapper.find('.drop').exists()).toBe(false)
  })

  it('speaks what arrives from others, not what one wrote oneself', async () => {
    state.timeline = [message({ text: 'first' })]
    ;({ wrapper } = await show(RoomView, { room: room() }))
    const spoken = (): string => wrapper.get('[aria-live=polite].visually-hidden').text()
    state.timeline = [...state.timeline, message({ text: 'second' })]
    await settle()
    expect(spoken()).toBe('Ada: second')
    state.timeline = [...state.timeline, message({ text: 'mine', own: true })]
    await settle()
    expect(spoken()).toBe('Ada: second')
    expect(wrapper.get('[role=log]').attributes('aria-label')).toBe('Messages in Garden')
  })

  describe('opened behind a dialog', () => {
    afterEach(() => vi.restoreAllMocks())

    it.each([false, true])(
      'focuses its composer once that is closed, unless the focus was moved: %s',
      async (moved) => {
        const always = Object.assign(new EventTarget(), { matches: true }) as MediaQueryList
        vi.spyOn(window, 'matchMedia').mockReturnValue(always)
        const host = {
          components: { RoomView },
          props: ['room', 'shown'],
          template: '<div><button /><input type="search" /><RoomView v-if="shown" :room="room" /></div>',
        }
        ;({ wrapper } = await show(host, { room: room(), shown: false }))
        wrapper.get<HTMLElement>('button').element.focus()
        const overlay = useOverlayStore()
        overlay.open({ kind: 'settings' })
        await wrapper.setProps({ shown: true })
        overlay.close()
        await settle()
        expect(document.activeElement?.tagName).toBe('BUTTON')
        if (moved) wrapper.get<HTMLElement>('input[type=search]').element.focus()
        await new Promise((resolve) => setTimeout(resolve, 100))
        expect(document.activeElement?.tagName).toBe(moved ? 'INPUT' : 'TEXTAREA')
      },
    )
  })

  describe('with the keyboard in its messages', () => {
    // Without a layout nothing is on screen, and the list renders nothing.
    beforeEach(() => {
      for (const side of ['clientWidth', 'clientHeight', 'offsetHeight'] as const)
        vi.spyOn(HTMLElement.prototype, side, 'get').mockReturnValue(400)
    })
    afterEach(() => vi.restoreAllMocks())

    const focused = (): string | undefined => (document.activeElement as HTMLElement | null)?.dataset.message
    const focusNewest = (): unknown => wrapper.getComponent(RoomView).vm.focusList()

    it('focuses the newest although another comes before it meanwhile', async () => {
      const [one, two] = [message({ text: 'one' }), message({ text: 'two' })]
      state.timeline = [two]
      ;({ wrapper } = await show(RoomView, { room: room() }))
      await settle()
      focusNewest()
      await nextTick()
      state.timeline = [one, two]
      await vi.waitFor(() => expect(focused()).toBe(two.msgId))
    })

    it('leaves the focus with a message that changes its place', async () => {
      const all = ['one', 'two', 'three'].map((text) => message({ text }))
      state.timeline = all
      ;({ wrapper } = await show(RoomView, { room: room() }))
      await settle()
      focusNewest()
      await vi.waitFor(() => expect(focused()).toBe(all[2]?.msgId))
      for (const order of [
        [2, 0, 1],
        [0, 2, 1],
        [1, 0, 2],
      ]) {
        state.timeline = order.flatMap((index) => all[index] ?? [])
        await settle()
        expect(focused()).toBe(all[2]?.msgId)
      }
    })
  })

  it('warns of a changed key until that is accepted or put off', async () => {
    const change = {
      roomId: 'r1',
      userId: 'u-ada',
      name: 'Ada',
      oldFingerprint: '0',
      newFingerprint: '1',
      account: false,
    }
    state.keyChanges = [
      change,
      { ...change, userId: 'u-bob', name: 'Bob', oldFingerprint: '' },
      { ...change, userId: ME },
    ]
    ;({ wrapper } = await show(KeyNotices, { room: room({ encryption: 'waiting' }) }))
    expect(wrapper.get('[role=alert]').text()).toContain('The encryption key of Ada has changed.')
    const warnings = wrapper.findAll('[role=alert]').map((alert) => alert.text())
    expect(warnings[1]).toContain('comes from a device of Bob that is not confirmed.')
    expect(warnings[2]).toContain('Another device of yours')
    expect(wrapper.get('[role=status]').text()).toContain('Waiting for a member to send the encryption key.')
    const [compare, accept, later] = wrapper.findAll('button')
    await compare?.trigger('click')
    await accept?.trigger('click')
    await later?.trigger('click')
    expect(useOverlayStore().current?.kind).toBe('safety')
    expect([called('acceptKey'), called('dismissKeyChange')]).toEqual([[['r1', 'u-ada']], [['r1', 'u-ada']]])
  })

  it.each([
    [[], ''],
    [['Ada'], 'Ada is typing…'],
    [['Ada', 'Bob'], 'Ada and Bob are typing…'],
    [['Ada', 'Bob', 'Eve'], 'Ada and 2 others are typing…'],
  ])('tells that %j type', async (names, words) => {
    state.typing = names.map((name) => ({ userId: name, name, color: '#000000' }))
    ;({ wrapper } = await show(TypingLine, { roomId: 'r1' }))
    expect(wrapper.text()).toBe(words)
  })
})

describe('the state of the connection', () => {
  const connection = useConnectionStore() as { -readonly [K in keyof ConnectionStore]: ConnectionStore[K] }

  it('is no word worth while it holds, nor for a blink', async () => {
    vi.useFakeTimers()
    ;({ wrapper } = await show(ConnectionBanner))
    connection.online = false
    connection.phase = 'connecting'
    await vi.advanceTimersByTimeAsync(500)
    connection.online = true
    await vi.advanceTimersByTimeAsync(2000)
    expect(wrapper.find('.banner').exists()).toBe(false)
  })

  it('counts down to the next try and offers one now', async () => {
    vi.useFakeTimers()
    connection.online = false
    connection.phase = 'waiting'
    connection.retryAtMs = Date.now() + 5000
    ;({ wrapper } = await show(ConnectionBanner))
    await vi.advanceTimersByTimeAsync(1000)
    expect(wrapper.get('.banner').text()).toContain('Next attempt in 4\u00a0s.')
    await wrapper.get('.banner button').trigger('click')
    expect(called('retryNow')).toHaveLength(1)
  })

  it('leads to signing in when the relay refuses the session', async () => {
    vi.useFakeTimers()
    Object.assign(connection, { online: false, phase: 'refused', reason: 'token expired' })
    ;({ wrapper } = await show(ConnectionBanner))
    await vi.advanceTimersByTimeAsync(1000)
    expect(wrapper.get('.banner').text()).toContain('token expired')
    expect(wrapper.get('.banner a').attributes('href')).toBe('/auth')
  })
})

describe('a notice', () => {
  it('leads to its room and goes away', async () => {
    ;({ wrapper } = await show(UiToasts))
    useNotificationsStore().notify({
      kind: 'info',
      key: 'notices.mention',
      params: { name: 'Ada', room: 'Garden' },
      roomId: 'r1',
    })
    await settle()
    await wrapper.get('.link').trigger('click')
    expect(wrapper.emitted('open')).toEqual([['r1']])
    expect(wrapper.text()).toBe('')
  })

  it('does on its button what it asks for, and says where that failed', async () => {
    ;({ wrapper } = await show(UiToasts))
    const ask = { kind: 'info', key: 'notices.friendRequest', params: { name: 'Ada' } } as const
    const runs: (() => Promise<string | null>)[] = [
      () => Promise.resolve('r2'),
      () => Promise.reject(failure('offline')),
    ]
    for (const run of runs) {
      useNotificationsStore().notify({ ...ask, action: { label: 'friends.accept', run } })
      await settle()
      const button = wrapper.get('button[aria-label^="Accept: Ada"]')
      expect(button.text()).toBe('Accept')
      await button.trigger('click')
      await settle()
    }
    expect(wrapper.emitted('open')).toEqual([['r2']])
    expect(useNotificationsStore().notices.map(({ kind }) => kind)).toEqual(['error'])
  })
})
