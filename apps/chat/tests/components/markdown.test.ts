// @vitest-environment happy-dom
import { describe, expect, it } from 'vitest'
import { render } from '@/components/room/markdown'

/** What the first link of a message says, and where it leads. */
function link(text: string): [string, string] {
  const found = render(text).querySelector('a')
  return [found?.textContent ?? '', found?.getAttribute('href') ?? '']
}

describe('a link', () => {
  it('says where it leads, whatever its text says', () => {
    for (const [written, shown] of [
      ['[https://bank.example](https://evil.example/login)', 'https://bank.example (evil.example)'],
      ['[bank.example](https://evil.example)', 'bank.example (evil.example)'],
      ['[https://bank.example@evil.example](https://evil.example)', 'https://bank.example@evil.example (evil.example)'],
      ['[https://evil.example](https://bank.example@evil.example)', 'https://evil.example'],
      ['[bank.example](https://bank.example:8443)', 'bank.example (bank.example:8443)'],
      ['[the plan](https://docs.example/plan)', 'the plan (docs.example)'],
      ['[**bank.example**](https://evil.example)', 'bank.example (evil.example)'],
      ['[bank\u200b.example/x](https://evil.example)', 'bank\u200b.example/x (evil.example)'],
      ['[ada@bank.example](mailto:eve@evil.example)', 'ada@bank.example (eve@evil.example)'],
    ] as const)
      expect(link(written)[0]).toBe(shown)
  })

  it('that says it stays as it was written', () => {
    for (const written of ['https://docs.example/plan?a=b', '<https://docs.example>', 'https://social.example/@ada'])
      expect(link(written)[0]).toBe(written.replace(/[<>]/g, ''))
    expect(link('[docs.example/plan](https://docs.example/other)')).toEqual([
      'docs.example/plan',
      'https://docs.example/other',
    ])
    expect(link('[ada@bank.example](mailto:ada@bank.example)')[0]).toBe('ada@bank.example')
  })
})
