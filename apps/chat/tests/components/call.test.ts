// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { nextTick } from 'vue'
import type { VueWrapper } from '@vue/test-utils'
import CallHost from '@/components/call/CallHost.vue'
import CallInvite from '@/components/call/CallInvite.vue'
import CallStage from '@/components/call/CallStage.vue'
import RoomHeader from '@/components/room/RoomHeader.vue'
import {
  answers,
  calls,
  failure,
  inCall,
  reset,
  room,
  setRooms,
  useCallsStore,
  useNotificationsStore,
  type CallPerson,
  type CurrentCall,
} from '../fakes/stores'
import { settle, show } from './mount'

vi.mock('@/stores', () => import('../fakes/stores'))

let wrapper: VueWrapper

beforeEach(reset)
afterEach(() => wrapper.unmount())

const called = (name: string): unknown[][] => calls.filter((call) => call.name === name).map((call) => call.args)
const button = (name: string) => wrapper.findAll('button').find((each) => each.attributes('aria-label') === name)

const person = (change: Partial<CallPerson> = {}): CallPerson => ({
  sessionId: 's-me',
  userId: 'u-me',
  name: 'Me',
  color: '#2563eb',
  self: true,
  heard: false,
  video: false,
  screen: false,
  state: 'connected',
  stream: null,
  ...change,
})
const ada = (change: Partial<CallPerson> = {}) =>
  person({ sessionId: 's-ada', userId: 'u-ada', name: 'Ada', self: false, heard: true, ...change })
const cy = (change: Partial<CallPerson> = {}) => ada({ sessionId: 's-cy', name: 'Cy', ...change })

const current = (change: Partial<CurrentCall> = {}): CurrentCall => ({
  roomId: 'r1',
  joining: false,
  people: [person(), ada()],
  microphone: false,
  camera: false,
  sharing: false,
  hasRelay: true,
  devices: [],
  ...change,
})

async function stage(change: Partial<CurrentCall> = {}): Promise<void> {
  ;({ wrapper } = await show(CallStage, { call: current(change) }))
}

describe('the stage of a call', () => {
  it('says of everybody who they are, whether they are heard, and what is wrong', async () => {
    inCall.speaking = ['s-ada']
    await stage({ people: [person(), ada(), cy({ state: 'interrupted' })] })
    const tiles = wrapper.findAll('li').map((tile) => tile.find('.name').text().replace(/\s+/g, ' '))
    expect(tiles).toEqual(['Me (you), muted', 'Ada, speaking', 'Cy, connection interrupted'])
  })

  it('turns microphone and camera on and off, and says why it cannot', async () => {
    answers['setCamera'] = failure('forbidden')
    await stage({ microphone: true })
    await button('Mute the microphone')!.trigger('click')
    await settle()
    await button('Turn on the camera')!.trigger('click')
    await settle()
    expect([called('setMicrophone'), called('setCamera')]).toEqual([[[false]], [[true]]])
    expect(useNotificationsStore().notices.map(({ kind }) => kind)).toEqual(['error'])
  })

  it('shows that the screen is shared, with a button that stops it', async () => {
    await stage({ sharing: true })
    const notice = wrapper.find('.sharing')
    expect(notice.attributes('role')).toBe('status')
    await notice.find('button').trigger('click')
    expect(called('stopSharing')).toHaveLength(1)
  })

  it('says that there is no way around firewalls, and that it is being joined', async () => {
    await stage({ hasRelay: false })
    expect(wrapper.text()).toContain('no TURN server')
    await wrapper.setProps({ call: current({ joining: true, hasRelay: null }) })
    expect(wrapper.text()).toContain('Joining the call…')
  })

  it('shows one person large: who is pinned, else a screen, else who speaks', async () => {
    await stage({ people: [person(), ada(), cy()] })
    const large = () => wrapper.find('.large .name').text()
    expect(wrapper.find('.large').exists()).toBe(false)
    inCall.speaking = ['s-cy']
    await button('Show one person large')!.trigger('click')
    expect(large()).toContain('Cy')
    await wrapper.setProps({ call: current({ people: [person(), ada({ screen: true }), cy()] }) })
    expect(large()).toContain('Ada')
    await button('Pin Cy')!.trigger('click')
    expect(large()).toContain('Cy')
    await button('Unpin Cy')!.trigger('click')
    await button('Show everybody in a grid')!.trigger('click')
    expect(wrapper.find('.large').exists()).toBe(false)
  })

  it('lets one choose among the devices', async () => {
    await stage({ devices: [{ id: 'mic-1', kind: 'audioinput', label: '' }] })
    await button('Microphone, camera and speaker')!.trigger('click')
    const [microphone, camera, ...more] = wrapper.findAll('select')
    expect([microphone!.findAll('option').map((each) => each.text()), more]).toEqual([
      ['Chosen by the browser', 'Device 1'],
      [],
    ])
    expect(camera!.findAll('option')).toHaveLength(1)
    await microphone!.setValue('mic-1')
    await microphone!.setValue('')
    expect(called('chooseDevice')).toEqual([
      ['audioinput', 'mic-1'],
      ['audioinput', null],
    ])
  })
})

describe('a call in another room', () => {
  it('is heard on, and has a bar that leads back to it', async () => {
    setRooms(room())
    const stream = new MediaStream()
    const call = current({ people: [person(), ada({ stream })], microphone: true })
    ;({ wrapper } = await show(CallHost, { call, shownRoom: 'r2' }))
    expect(wrapper.findAll('audio')).toHaveLength(1)
    expect(wrapper.find('audio').element.srcObject).toBe(stream)
    expect(wrapper.find('a').attributes('href')).toBe('/chat/r1')
    await button('Mute the microphone')!.trigger('click')
    await button('Leave the call')!.trigger('click')
    expect([called('setMicrophone'), called('leaveCall')]).toEqual([[[false]], [[]]])
    await wrapper.setProps({ shownRoom: 'r1' })
    expect([wrapper.find('section').exists(), wrapper.findAll('audio').length]).toEqual([false, 1])
  })
})

describe('a room', () => {
  it('says who is in its call, and lets one join', async () => {
    inCall.callers = [{ userId: 'u-ada', name: 'Ada', color: '#2563eb' }]
    ;({ wrapper } = await show(CallInvite, { roomId: 'r1' }))
    expect(wrapper.text()).toContain('Ada is in a call.')
    inCall.callers = [...inCall.callers, ...inCall.callers, ...inCall.callers]
    await nextTick()
    expect(wrapper.text()).toContain('Ada and 2 others are in a call.')
    await wrapper.find('button').trigger('click')
    expect(called('joinCall')).toEqual([['r1']])
    ;(useCallsStore() as { current: CurrentCall | null }).current = current()
    await nextTick()
    expect(wrapper.find('.invite').exists()).toBe(false)
  })

  it('offers calls to those inside, where the browser can make them', async () => {
    ;({ wrapper } = await show(RoomHeader, { room: room() }))
    await button('Start a call')!.trigger('click')
    expect(called('joinCall')).toEqual([['r1']])
    inCall.callers = [{ userId: 'u-ada', name: 'Ada', color: '#2563eb' }]
    await nextTick()
    expect(button('Join the call')).toBeDefined()
    ;(useCallsStore() as { current: CurrentCall | null }).current = current()
    await nextTick()
    await button('Leave the call')!.trigger('click')
    expect(called('leaveCall')).toEqual([[]])
    ;(useCallsStore() as { current: CurrentCall | null }).current = null
    await wrapper.setProps({ room: room({ access: 'banned' }) })
    expect(button('Join the call')).toBeUndefined()
  })
})
