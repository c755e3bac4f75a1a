// @vitest-environment happy-dom
import { beforeAll, describe, expect, it } from 'vitest'
import { mount, type VueWrapper } from '@vue/test-utils'
import { addConsoleTexts } from '@/console/i18n'
import ReportCard from '@/console/parts/ReportCard.vue'
import { CONSOLE, makeConsole } from '@/console/session'
import type { KeptMessages, Report } from '@/console/shapes'
import { i18n } from '@/i18n'
import { systemClock } from '@/protocol/clock'
import { settle } from '../components/mount'

const REPORT: Report = {
  id: 'n1',
  room_id: 'r1',
  message: { msgId: 'm1', userId: 'ada', from: 'Ada', text: 'Rude words' },
  reason: 'Insults',
  reporter: 'bob',
  reporter_name: 'Bob',
  created_at: 1_700_000_000,
  resolved: null,
}
const KEPT: KeptMessages = {
  state: 'kept',
  messages: [{ author: 'ada', at_s: 1_700_000_000, text: 'Rude words', has_attachment: false }],
  same_author: true,
  same_text: true,
}

let asked: string[] = []

async function show(kept: Partial<KeptMessages> | null, report: Partial<Report> = {}): Promise<VueWrapper> {
  asked = []
  const session = makeConsole({
    base: '',
    clock: systemClock,
    storage: () => window.sessionStorage,
    fetch: (url) => {
      asked.push(url)
      const body = kept ? { ...KEPT, ...kept } : { error: 'The relay is busy.' }
      return Promise.resolve(Response.json(body, { status: kept ? 200 : 503 }))
    },
  })
  const wrapper = mount(ReportCard, {
    props: { report: { ...REPORT, ...report } },
    global: { plugins: [i18n], provide: { [CONSOLE as symbol]: session } },
  })
  await settle()
  await settle()
  return wrapper
}

const sides = (wrapper: VueWrapper): string[] => wrapper.findAll('.side').map((side) => side.text())

beforeAll(() => addConsoleTexts('en'))

describe('a report', () => {
  it('is called a claim, and stands beside what the relay has kept', async () => {
    const wrapper = await show({})
    expect(asked).toEqual(['/api/admin/reports/n1/kept'])
    const [claim, kept] = sides(wrapper)
    expect(claim).toContain('A claim: the relay has proven who reported it')
    expect(claim).toContain('Rude words')
    expect(claim).toContain('Ada · ada')
    expect(kept).toContain('the author is proven')
    expect(kept).toContain('Rude words')
    expect(kept).toContain('ada')
    expect(wrapper.text()).toContain('Reported by Bob')
    expect(wrapper.text()).not.toContain('Differs')
  })

  it('that differs from what was kept says so, in author or text', async () => {
    for (const part of [{ same_author: false }, { same_text: false }]) {
      const wrapper = await show(part)
      expect(wrapper.text()).toContain('Differs from what was kept')
    }
    // Nothing to compare is no difference.
    expect((await show({ same_author: null, same_text: null })).text()).not.toContain('Differs')
  })

  it('has edits beside it, and what the relay cannot read', async () => {
    const messages = [
      { author: 'ada', at_s: 1, text: null, has_attachment: false },
      { author: 'ada', at_s: 2, text: '', has_attachment: true },
      { author: 'ada', at_s: 3, text: '', has_attachment: false },
    ]
    const [, kept] = sides(await show({ messages }))
    for (const words of ['encrypted, unreadable for the relay', 'an image or a file', '(no text)', 'Edited by'])
      expect(kept).toContain(words)
  })

  it('says why there is nothing beside it', async () => {
    expect(sides(await show({ state: 'off', messages: [] }))[1]).toContain('keeps no messages of this room')
    expect(sides(await show({ state: 'missing', messages: [] }))[1]).toContain('No such message is kept')
    const wrapper = await show(null)
    expect(sides(wrapper)[1]).toContain('The relay is busy.')
  })

  it('shows whatever a client has written as text', async () => {
    for (const [message, words] of [
      ['plain words', 'plain words'],
      [null, '(no text)'],
      [{ text: 7, from: [] }, '(no text)'],
    ] as const)
      expect(sides(await show({}, { message }))[0]).toContain(words)
    const resolved = { at: 1, by: 'root', note: 'Spoke with Ada' }
    const wrapper = await show({}, { resolved, reporter_name: null, reason: null })
    expect(wrapper.text()).toContain('Reported by bob')
    expect(wrapper.text()).toContain('Spoke with Ada')
    expect(wrapper.findAll('button').map((button) => button.text())).toEqual(['Delete'])
  })

  it('is resolved and deleted by its buttons', async () => {
    const wrapper = await show({})
    for (const button of wrapper.findAll('button')) await button.trigger('click')
    expect(Object.keys(wrapper.emitted())).toEqual(expect.arrayContaining(['resolve', 'delete']))
  })
})
