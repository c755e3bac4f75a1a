// @vitest-environment happy-dom
import { beforeEach, describe, expect, it, vi } from 'vitest'
import VoiceButton from '@/components/composer/VoiceButton.vue'
import { loudnessOf, Recorder, waveformOf } from '@/components/composer/recording'
import ViewerDialog from '@/components/dialogs/ViewerDialog.vue'
import MessageFile from '@/components/files/MessageFile.vue'
import { sizeText, timeText } from '@/components/files/sizes'
import UploadList from '@/components/files/UploadList.vue'
import type { FileInfo } from '@/protocol/shapes'
import { answers, calls, failure, message, reset, state, useNotificationsStore } from '../fakes/stores'
import { settle, show } from './mount'

vi.mock('@/stores', () => import('../fakes/stores'))

const called = (name: string): unknown[][] => calls.filter((call) => call.name === name).map((call) => call.args)

const file = (change: Partial<FileInfo> = {}): FileInfo => ({
  id: '0'.repeat(32),
  name: 'plan.pdf',
  type: 'application/pdf',
  size: 1_234_567,
  sha256: '0'.repeat(64),
  key: null,
  iv: null,
  seconds: null,
  waveform: null,
  ...change,
})

beforeEach(reset)

it('sizes and times in words', () => {
  expect([0, 999, 1000, 1_234_567, 3e12].map((bytes) => sizeText(bytes, 'en'))).toEqual([
    '0 B',
    '999 B',
    '1 kB',
    '1.2 MB',
    '3,000 GB',
  ])
  expect([-1, 0, 59.6, 65, 3600].map(timeText)).toEqual(['0:00', '0:00', '1:00', '1:05', '60:00'])
})

describe('files on their way', () => {
  it('show how far they are, and can be given up or tried again', async () => {
    const upload = { id: 1, roomId: 'r1', name: 'a.zip', size: 100, sent: 40, state: 'sending' as const, failure: null }
    const refused = { ...upload, id: 2, name: 'b.zip', state: 'failed' as const, failure: failure('server') as never }
    state.uploads = [upload, refused]
    const { wrapper } = await show(UploadList, { roomId: 'r1' })
    expect(wrapper.get('progress').attributes()).toMatchObject({ value: '40', max: '100' })
    expect(wrapper.get('[role=alert]').text()).toContain('b.zip was not sent.')
    await wrapper.get('button[aria-label="Remove a.zip"]').trigger('click')
    await wrapper
      .findAll('button')
      .find((button) => button.text() === 'Try again')!
      .trigger('click')
    expect(called('cancelUpload')).toEqual([[1]])
    expect(called('retryUpload')).toEqual([[2]])
    wrapper.unmount()
  })
})

describe('a file of a message', () => {
  it.each(['application/pdf', 'text/html', 'image/svg+xml', 'video/mp4'])(
    'of type %s is only downloaded',
    async (type) => {
      const one = file({ type })
      const { wrapper } = await show(MessageFile, { file: one, preview: false })
      expect(wrapper.find('audio, video, img, iframe, object, embed').exists()).toBe(false)
      expect(wrapper.text()).toContain('1.2 MB')
      await wrapper.get('button[aria-label="Download plan.pdf"]').trigger('click')
      expect(called('saveFile')).toEqual([[one]])
      wrapper.unmount()
    },
  )

  it('is no card where the message shows its preview', async () => {
    const { wrapper } = await show(MessageFile, { file: file({ type: 'image/png' }), preview: true })
    expect(wrapper.text()).toBe('')
    wrapper.unmount()
  })

  it('that is a voice message plays, from where the slider is put', async () => {
    const play = vi.spyOn(HTMLMediaElement.prototype, 'play').mockResolvedValue()
    const pause = vi.spyOn(HTMLMediaElement.prototype, 'pause').mockReturnValue()
    const voice = file({ type: 'audio/webm', seconds: 65, waveform: [0, 31, 5] })
    const { wrapper } = await show(MessageFile, { file: voice, preview: false })
    expect(wrapper.get('[role=group]').attributes('aria-label')).toBe('Voice message, 1:05')
    expect(wrapper.findAll('rect')).toHaveLength(3)
    await wrapper.get('button[aria-label="Play"]').trigger('click')
    await settle()
    expect(called('openFile')).toEqual([[voice]])
    expect(play).toHaveBeenCalledOnce()
    await wrapper.get('audio').trigger('play')
    await wrapper.get('input[type=range]').setValue('12.5')
    expect((wrapper.get('audio').element as HTMLAudioElement).currentTime).toBe(12.5)
    await wrapper.get('button[aria-label="Pause"]').trigger('click')
    expect(pause).toHaveBeenCalledOnce()
    wrapper.unmount()
    vi.restoreAllMocks()
  })

  it('that cannot be opened says why', async () => {
    answers['openFile'] = failure('missing')
    const { wrapper } = await show(MessageFile, { file: file({ type: 'audio/ogg', name: 'a.ogg' }), preview: false })
    expect(wrapper.text()).toContain('a.ogg')
    await wrapper.get('button[aria-label="Play"]').trigger('click')
    await settle()
    expect(useNotificationsStore().notices).toHaveLength(1)
    wrapper.unmount()
  })

  it('that is a picture is shown whole in the viewer', async () => {
    const picture = message({ kind: 'image', image: 'data:image/png;base64,AAAA', file: file({ type: 'image/webp' }) })
    const { wrapper } = await show(ViewerDialog, { message: picture })
    await settle()
    expect(document.querySelector('.frame img')?.getAttribute('src')).toMatch(/^blob:/)
    wrapper.unmount()
  })
})

describe('recording', () => {
  it('shows the loudest moments, at most 31', () => {
    expect(waveformOf([])).toEqual([])
    expect(waveformOf([0, 0.125, 9])).toEqual([0, 16, 31])
    expect(waveformOf(Array.from({ length: 640 }, (_, at) => (at % 10 === 9 ? 0.25 : 0)))).toEqual(Array(64).fill(31))
    expect(loudnessOf(new Float32Array([0.5, -0.5]))).toBe(0.5)
  })

  const recording = { file: new File(['x'], 'voice.webm'), seconds: 3, waveform: [1] }

  async function button(seconds = 3) {
    const fake = { seconds, stop: vi.fn(() => Promise.resolve(recording)), cancel: vi.fn() }
    const start = vi.spyOn(Recorder, 'start').mockResolvedValue(fake as unknown as Recorder)
    const { wrapper } = await show(VoiceButton, {})
    HTMLElement.prototype.setPointerCapture ??= () => undefined
    const press = (type: string, timeStamp: number) => {
      const event = new PointerEvent(type, { bubbles: true, button: 0 })
      Object.defineProperty(event, 'timeStamp', { value: timeStamp })
      wrapper.get('.press').element.dispatchEvent(event)
      return settle()
    }
    return { wrapper, fake, start, press }
  }

  it('lasts as long as the button is held', async () => {
    const { wrapper, press } = await button()
    await press('pointerdown', 1000)
    expect(wrapper.get('[role=timer]').text()).toBe('0:00')
    await press('pointerup', 3000)
    expect(wrapper.emitted('recorded')).toEqual([[recording]])
    wrapper.unmount()
  })

  it('goes on after a short press, and ends by a button', async () => {
    const { wrapper, press } = await button()
    await press('pointerdown', 1000)
    await press('pointerup', 1100)
    expect(wrapper.emitted('recorded')).toBeUndefined()
    await wrapper.get('button[aria-label="Send the voice message"]').trigger('click')
    await settle()
    expect(wrapper.emitted('recorded')).toHaveLength(1)
    wrapper.unmount()
  })

  it('is started by a key, and discarded by another', async () => {
    const { wrapper, fake } = await button()
    await wrapper.get('.press button').trigger('click', { detail: 0 })
    await settle()
    expect(document.activeElement?.getAttribute('aria-label')).toBe('Send the voice message')
    await wrapper.get('.recording').trigger('keydown', { key: 'Escape' })
    expect(fake.cancel).toHaveBeenCalledOnce()
    expect(wrapper.emitted('recorded')).toBeUndefined()
    wrapper.unmount()
  })

  it('of nothing is not sent, and a microphone that is refused is told', async () => {
    const { wrapper, press, fake, start } = await button(0.1)
    await press('pointerdown', 1000)
    await press('pointerup', 3000)
    expect(fake.cancel).toHaveBeenCalledOnce()
    start.mockRejectedValue(failure('forbidden'))
    await press('pointerdown', 5000)
    expect(useNotificationsStore().notices).toHaveLength(1)
    expect(wrapper.find('.recording').exists()).toBe(false)
    wrapper.unmount()
  })
})
