// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { VueWrapper } from '@vue/test-utils'
import type { Router } from 'vue-router'
import AuthView from '@/views/AuthView.vue'
import LandingView from '@/views/LandingView.vue'
import { answers, calls, failure, reset, useSessionStore } from '../fakes/stores'
import { settle, show } from '../components/mount'

vi.mock('@/stores', () => import('../fakes/stores'))

let wrapper: VueWrapper
let router: Router

beforeEach(reset)
afterEach(() => {
  wrapper.unmount()
  vi.useRealTimers()
})

const submit = async (): Promise<void> => {
  await wrapper.get('form').trigger('submit')
  await settle()
}

describe('the landing page', () => {
  it('takes a guest to the chat by one field, and an invitation along', async () => {
    ;({ wrapper, router } = await show(LandingView, {}, '/?join=r9'))
    expect(wrapper.text()).toContain('You have been invited to a room.')
    await wrapper.get('input').setValue('  Kim ')
    await submit()
    expect(calls).toEqual([{ name: 'continueAsGuest', args: ['Kim'] }])
    expect(router.currentRoute.value.fullPath).toBe('/chat?join=r9')
  })

  it('asks for a name where there is none', async () => {
    ;({ wrapper } = await show(LandingView))
    await wrapper.get('input').setValue(' ')
    await submit()
    expect(calls).toEqual([])
    expect(wrapper.get('[role=alert]').text()).toBe('Enter a name.')
  })

  it('says how long to wait, and lets one in again afterwards', async () => {
    answers['continueAsGuest'] = failure('tooMany', 'slow down', 2)
    ;({ wrapper } = await show(LandingView))
    await wrapper.get('input').setValue('Kim')
    vi.useFakeTimers()
    await wrapper.get('form').trigger('submit')
    await vi.advanceTimersByTimeAsync(0)
    expect(wrapper.get('[role=alert]').text()).toContain('in 2\u00a0s.')
    const button = wrapper.get('button[type=submit]')
    expect(button.text()).toBe('Wait 2\u00a0s')
    expect(button.attributes('disabled')).toBeDefined()
    await vi.advanceTimersByTimeAsync(2000)
    expect(button.attributes('disabled')).toBeUndefined()
  })
})

describe('the account page', () => {
  const errorOf = (name: string): string => {
    const id = wrapper.get(`input[name=${name}]`).attributes('aria-describedby')?.split(' ').at(-1) ?? ''
    return document.getElementById(id)?.textContent ?? ''
  }
  const fill = async (values: Record<string, string>): Promise<void> => {
    for (const [name, value] of Object.entries(values)) await wrapper.get(`input[name=${name}]`).setValue(value)
  }

  it('signs in and goes to the chat', async () => {
    ;({ wrapper, router } = await show(AuthView, {}, '/auth?join=r9'))
    await fill({ username: 'ada', password: 'secret' })
    await submit()
    expect(calls).toEqual([{ name: 'login', args: ['ada', 'secret', true] }])
    expect(router.currentRoute.value.fullPath).toBe('/chat?join=r9')
  })

  it('asks a guest whether to take the rooms along, and nobody else', async () => {
    ;({ wrapper } = await show(AuthView, {}, '/auth'))
    expect(wrapper.text()).toContain('You join them with your account.')
    await wrapper.get('[role=switch]').trigger('click')
    expect(wrapper.text()).toContain('are deleted from this browser')
    await fill({ username: 'ada', password: 'secret' })
    await submit()
    expect(calls).toEqual([{ name: 'login', args: ['ada', 'secret', false] }])
    wrapper.unmount()
    ;(useSessionStore() as { guest: boolean }).guest = false
    ;({ wrapper } = await show(AuthView, {}, '/auth'))
    expect(wrapper.find('[role=switch]').exists()).toBe(false)
  })

  it('says at the password that it is wrong', async () => {
    answers['login'] = failure('credentials')
    ;({ wrapper } = await show(AuthView, {}, '/auth'))
    await fill({ username: 'ada', password: 'secret' })
    await submit()
    expect(errorOf('password')).toBe('Wrong name or password.')
    expect(wrapper.get('input[name=password]').attributes('aria-invalid')).toBe('true')
  })

  it('says at the name that it is taken', async () => {
    answers['register'] = failure('nameTaken')
    ;({ wrapper } = await show(AuthView, {}, '/auth?mode=register'))
    await fill({ username: 'ada', password: 'secret', repeat: 'secret' })
    await submit()
    expect(errorOf('username')).toContain('This name is already taken.')
  })

  it.each([
    [{ username: 'a', password: 'secret', repeat: 'secret' }, 'username', '2 to 32'],
    [{ username: 'ada', password: 'short', repeat: 'short' }, 'password', '6 characters'],
    [{ username: 'ada', password: 'secret', repeat: 'secreT' }, 'repeat', 'do not match'],
  ])('checks %j before it asks the server', async (values, field, words) => {
    ;({ wrapper } = await show(AuthView, {}, '/auth?mode=register'))
    await fill(values)
    await submit()
    expect(calls).toEqual([])
    expect(errorOf(field)).toContain(words)
  })

  it('promises a guest to keep everything', async () => {
    ;({ wrapper } = await show(AuthView, {}, '/auth?mode=register'))
    expect(wrapper.text()).toContain('You keep your rooms')
    wrapper.unmount()
    ;(useSessionStore() as { guest: boolean }).guest = false
    ;({ wrapper } = await show(AuthView, {}, '/auth?mode=register'))
    expect(wrapper.text()).not.toContain('You keep your rooms')
  })
})
