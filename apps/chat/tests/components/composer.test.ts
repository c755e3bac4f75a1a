// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { VueWrapper } from '@vue/test-utils'
import ComposerBar from '@/components/composer/ComposerBar.vue'
import { useOverlayStore } from '@/components/overlay'
import { complete, typedAt } from '@/components/composer/completion'
import {
  answers,
  calls,
  failure,
  message,
  reset,
  room,
  state,
  useFilesStore,
  useNotificationsStore,
} from '../fakes/stores'
import { settle, show } from './mount'

vi.mock('@/stores', () => import('../fakes/stores'))

const called = (name: string): unknown[][] => calls.filter((call) => call.name === name).map((call) => call.args)

describe('what is being typed', () => {
  it.each([
    ['/ro', 3, { kind: 'command', word: 'ro', from: 0 }],
    ['/', 1, { kind: 'command', word: '', from: 0 }],
    ['hi @gr', 6, { kind: 'mention', word: 'gr', from: 3 }],
    ['@', 1, { kind: 'mention', word: '', from: 0 }],
    ['mail@host', 9, null],
    ['say /roll', 9, null],
    ['/roll 2', 7, null],
  ])('in %j at %d is %j', (text, caret, expected) => {
    expect(typedAt(text, caret)).toEqual(expected)
  })

  it('is replaced by what was chosen, and the caret stands behind it', () => {
    expect(complete('hi @gr you', 6, { kind: 'mention', word: 'gr', from: 3 }, '@Grace')).toEqual({
      text: 'hi @Grace you',
      caret: 10,
    })
  })
})

describe('the composer', () => {
  let wrapper: VueWrapper

  beforeEach(async () => {
    reset()
    ;({ wrapper } = await show(ComposerBar, { room: room() }))
  })
  afterEach(() => wrapper.unmount())

  const box = () => wrapper.get('textarea')
  const text = (): string => (box().element as HTMLTextAreaElement).value

  async function type(value: string): Promise<void> {
    await box().setValue(value)
    ;(box().element as HTMLTextAreaElement).setSelectionRange(value.length, value.length)
    await box().trigger('keyup')
  }

  it('sends with Enter and is empty afterwards', async () => {
    await type('hello')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    expect(called('send')).toEqual([['r1', { text: 'hello' }]])
    expect(text()).toBe('')
  })

  it.each([
    ['Shift+Enter', { key: 'Enter', shiftKey: true }],
    ['Enter of an input method', { key: 'Enter', isComposing: true }],
    ['Enter of an input method in older browsers', { key: 'Enter', keyCode: 229 }],
  ])('does not send with %s', async (_, event) => {
    await type('hello')
    await box().trigger('keydown', event)
    await settle()
    expect(called('send')).toEqual([])
    expect(text()).toBe('hello')
  })

  it('sends neither nothing nor blanks nor too much', async () => {
    for (const value of ['', '  \n ', 'x'.repeat(2001)]) {
      await type(value)
      await box().trigger('keydown', { key: 'Enter' })
    }
    await settle()
    expect(called('send')).toEqual([])
    expect(wrapper.get('[role=alert]').text()).toContain('1 character too many')
  })

  it('keeps what was written when sending fails, and says why', async () => {
    answers['send'] = failure('tooLarge')
    await type('hello')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    expect(text()).toBe('hello')
    expect(useNotificationsStore().notices[0]?.key).toBe('errors.tooLarge')
  })

  it('keeps a draft and starts with it', async () => {
    await type('half a thou')
    expect(state.draft).toEqual({ text: 'half a thou', replyTo: null, image: null, edit: null })
    wrapper.unmount()
    ;({ wrapper } = await show(ComposerBar, { room: room() }))
    expect(text()).toBe('half a thou')
  })

  it('says that one types, and that one has stopped', async () => {
    await type('h')
    expect(called('noteTyping')).toEqual([['r1']])
    await type('')
    expect(called('stopTyping').length).toBeGreaterThan(0)
  })

  it('asks before it sends what looks like a command and is none', async () => {
    const overlay = useOverlayStore()
    await type('/dance with me')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    expect(called('send')).toEqual([])
    expect(overlay.current).toMatchObject({ kind: 'confirm', title: '/dance is not a command' })
    if (overlay.current?.kind === 'confirm') await overlay.current.run()
    expect(called('send')).toEqual([['r1', { text: '/dance with me' }]])
    overlay.closeAll()
    for (const said of ['/shrug', '/etc/passwd', 'and / or', '/ 2']) {
      await type(said)
      await box().trigger('keydown', { key: 'Enter' })
      await settle()
      expect(called('send').at(-1)).toEqual(['r1', { text: said }])
      expect(overlay.current).toBeNull()
    }
  })

  it('completes a command with Tab', async () => {
    await type('/sh')
    expect(wrapper.findAll('[role=option]').map((option) => option.text())).toEqual(['/shrug/shrug [text]'])
    await box().trigger('keydown', { key: 'Tab' })
    await settle()
    expect(text()).toBe('/shrug ')
  })

  it('closes the suggestions with Escape and leaves the text', async () => {
    await type('/sh')
    await box().trigger('keydown', { key: 'Escape' })
    expect(wrapper.findAll('[role=option]')).toEqual([])
    expect(text()).toBe('/sh')
  })

  it('keeps a reply that was chosen while the message before it was being sent', async () => {
    let sent = (): void => undefined
    answers['send'] = () => new Promise<void>((resolve) => (sent = resolve))
    await type('hello')
    await box().trigger('keydown', { key: 'Enter' })
    await wrapper.setProps({ replyTo: message({ msgId: 'm7', name: 'Grace' }) })
    sent()
    await settle()
    expect(text()).toBe('')
    expect(wrapper.text()).toContain('Replying to Grace')
  })

  it('answers the message that it was told to, until Escape', async () => {
    const quoted = message({ name: 'Grace' })
    await wrapper.setProps({ replyTo: quoted })
    expect(wrapper.text()).toContain('Replying to Grace')
    await type('yes')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    expect(called('send')).toEqual([['r1', { text: 'yes', replyTo: quoted.msgId }]])
    await wrapper.setProps({ replyTo: message() })
    await box().trigger('keydown', { key: 'Escape' })
    expect(wrapper.emitted('update:replyTo')?.at(-1)).toEqual([null])
  })

  it('changes a message and then shows the draft again', async () => {
    await type('my draft')
    const own = message({ own: true, text: 'Tpyo' })
    await wrapper.setProps({ editing: own })
    await settle()
    expect(text()).toBe('Tpyo')
    await type('Typo')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    expect(called('edit')).toEqual([['r1', own.msgId, 'Typo']])
    await wrapper.setProps({ editing: null })
    await settle()
    expect(text()).toBe('my draft')
  })

  it('asks for the last own message with the arrow in an empty box', async () => {
    await box().trigger('keydown', { key: 'ArrowUp' })
    expect(wrapper.emitted('editLast')).toHaveLength(1)
  })

  it('sends a picture with its description', async () => {
    const input = wrapper.get('input[type=file]')
    Object.defineProperty(input.element, 'files', { value: [new File(['x'], 'x.png', { type: 'image/png' })] })
    await input.trigger('change')
    await settle()
    await wrapper.get('input[type=text]').setValue('A cat')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    const sent = { text: '', image: { dataUrl: 'data:image/png;base64,AAAA', alt: 'A cat' } }
    expect(called('sendFile')).toEqual([['r1', (input.element as HTMLInputElement).files![0], sent]])
    expect(called('send')).toEqual([])
  })

  it('sends the preview alone where the relay takes no files', async () => {
    useFilesStore().enabled = false
    const { input } = await pick(new File(['x'], 'x.png', { type: 'image/png' }))
    expect(input.attributes('accept')).toBe('image/*')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    expect(called('send')).toEqual([['r1', { text: '', image: { dataUrl: 'data:image/png;base64,AAAA', alt: '' } }]])
    expect(called('sendFile')).toEqual([])
  })

  async function pick(...files: File[]) {
    const input = wrapper.get('input[type=file]')
    Object.defineProperty(input.element, 'files', { value: files, configurable: true })
    await input.trigger('change')
    await settle()
    return { input }
  }

  it('sends several files with the text at the first, without those that were taken out again', async () => {
    const files = ['a.pdf', 'b.zip', 'c.txt'].map((name) => new File(['x'], name))
    await pick(...files)
    await wrapper.get('button[aria-label="Remove b.zip"]').trigger('click')
    await type('look')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    expect(called('sendFile')).toEqual([
      ['r1', files[0], { text: 'look' }],
      ['r1', files[2]],
    ])
    expect(text()).toBe('')
    expect(wrapper.find('.files').exists()).toBe(false)
  })

  it('takes what is pasted, and sends what is no picture here as it is', async () => {
    answers['prepareImage'] = failure('invalid')
    const heic = new File(['x'], 'x.heic', { type: 'image/heic' })
    await box().trigger('paste', { clipboardData: { files: [heic] } })
    await settle()
    expect(wrapper.get('.files').text()).toContain('x.heic')
    await box().trigger('keydown', { key: 'Enter' })
    await settle()
    expect(called('sendFile')).toEqual([['r1', heic, { text: '' }]])
  })
})
