// @vitest-environment happy-dom
import { describe, expect, it } from 'vitest'
import { qrPath } from '@/components/dialogs/qr'
import { inkOn, initialsOf, safeColor } from '@/components/ui/color'
import { errorText, noticeText } from '@/components/ui/errors'
import { isWriting, shortcutOf } from '@/components/useShortcuts'
import { findEmojis, loadEmojis } from '@/components/composer/emojiData'
import { i18n, type Translate } from '@/i18n'
import { Failure } from '@/protocol/errors'
import { failure } from '../fakes/stores'

const t: Translate = (key, params) => i18n.global.t(key, params ?? {})

describe('a colour', () => {
  it.each(['red', 'url(https://t.example)', '#12345', '#12345g', '', '#fff'])('%j is not taken from others', (bad) => {
    expect(safeColor(bad)).toMatch(/^#[0-9a-f]{6}$/)
    expect(safeColor(bad)).not.toBe(bad)
  })

  it('gets the ink that can be read on it', () => {
    expect([inkOn('#000000'), inkOn('#ffffff'), inkOn('#f5c26b'), inkOn('#2563eb')]).toEqual([
      '#ffffff',
      '#000000',
      '#000000',
      '#ffffff',
    ])
  })
})

describe('initials', () => {
  it.each([
    ['Ada', 'A'],
    ['grace brewster hopper', 'GH'],
    ['', '?'],
    ['👩‍🚀 x', '👩X'],
  ])('of %j are %j', (name, expected) => expect(initialsOf(name)).toBe(expected))
})

describe('an error', () => {
  it.each([
    [failure('credentials'), 'Wrong name or password.'],
    [failure('tooMany', '', 30), 'Too many attempts. Try again in 30\u00a0s.'],
    [failure('tooMany'), 'Too many attempts. Try again in a moment.'],
    [failure('server', 'disk full'), 'The server could not complete the request. Server response: “disk full”'],
    [failure('credentials', 'bad password'), 'Wrong name or password.'],
    [new Failure('invalid', 'x', { reason: 'emptyMessage' }), 'The message is empty.'],
    [new TypeError('x is not a function'), 'Something went wrong. Try again.'],
    [null, 'Something went wrong. Try again.'],
  ])('%s is put into words', (error, words) => expect(errorText(t, error)).toBe(words))

  it('in a notice quotes the server', () => {
    const notice = { key: 'errors.forbidden', params: {}, quote: 'not yours' } as const
    expect(noticeText(t, notice)).toBe('You do not have permission to do this. Server response: “not yours”')
    expect(noticeText(t, { key: 'notices.pendingRequests', params: { count: 2 }, quote: '' })).toBe(
      'You have 2 friend requests.',
    )
  })
})

describe('a key press', () => {
  const press = (init: KeyboardEventInit): string | null => shortcutOf(new KeyboardEvent('keydown', init))

  it.each([
    [{ key: '?' }, 'help'],
    [{ key: 'k', code: 'KeyK', ctrlKey: true }, 'findRoom'],
    [{ key: 'k', code: 'KeyK', metaKey: true }, 'findRoom'],
    [{ key: 'F', code: 'KeyF', ctrlKey: true, shiftKey: true }, 'searchMessages'],
    [{ key: 'ArrowDown', code: 'ArrowDown', altKey: true }, 'next'],
    [{ key: 'ç', code: 'KeyC', altKey: true }, 'compose'],
    [{ key: 'c', code: 'KeyC' }, null],
    [{ key: 'c', code: 'KeyC', altKey: true, ctrlKey: true }, null],
    [{ key: 'f', code: 'KeyF', ctrlKey: true }, null],
  ])('%j means %j', (init, expected) => expect(press(init)).toBe(expected))

  it('of a question mark in a text field is a question mark', () => {
    const box = document.body.appendChild(document.createElement('textarea'))
    let meaning: string | null = 'none'
    box.addEventListener('keydown', (event) => (meaning = shortcutOf(event)))
    box.dispatchEvent(new KeyboardEvent('keydown', { key: '?' }))
    expect(meaning).toBeNull()
  })
})

describe('emojis', () => {
  it('are found by all words of a query, in English and German', async () => {
    const english = await loadEmojis('en')
    expect(english.length).toBeGreaterThan(7)
    expect(findEmojis(english, 'party popper', 5).map((emoji) => emoji.sign)).toContain('🎉')
    expect(findEmojis(english, 'a', 5)).toHaveLength(5)
    expect(findEmojis(await loadEmojis('de'), 'daumen hoch', 5).map((emoji) => emoji.sign)).toContain('👍️')
    expect(await loadEmojis('xx')).toBe(english)
  })
})

describe('typing beside all fields', () => {
  it('is writing, unless the keys mean something or a field takes them', () => {
    const writes = (init: KeyboardEventInit, target: HTMLElement = document.body): boolean => {
      let found = false
      const note = (event: KeyboardEvent): void => void (found = isWriting(event))
      target.addEventListener('keydown', note)
      target.dispatchEvent(new KeyboardEvent('keydown', init))
      target.removeEventListener('keydown', note)
      return found
    }
    expect(['a', 'Ä', '7', '/', '漢'].map((key) => writes({ key }))).toEqual([true, true, true, true, true])
    const others = [
      { key: ' ' },
      { key: 'Enter' },
      { key: 'F5' },
      { key: 'a', ctrlKey: true },
      { key: 'a', altKey: true },
    ]
    expect(others.map((init) => writes(init))).toEqual([false, false, false, false, false])
    expect(['input', 'select', 'button'].map((tag) => writes({ key: 'a' }, document.createElement(tag)))).toEqual([
      false,
      false,
      true,
    ])
  })
})

describe('a QR code', () => {
  it('has its quiet zone around the modules of its version', async () => {
    const { size, path } = qrPath('https://chat.example/?join=r9')
    expect(size).toBe(29 + 2 * 4)
    expect(path).toContain('M4 4h1v1h-1z')
    expect(path).not.toMatch(/M[0-3] /)
  })
})
