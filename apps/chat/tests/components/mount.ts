import { createPinia, setActivePinia } from 'pinia'
import { mount, type VueWrapper } from '@vue/test-utils'
import { createMemoryHistory, createRouter, type Router } from 'vue-router'
import type { Component } from 'vue'
import { i18n } from '@/i18n'

const NOTHING = { template: '<p />' }

export interface Mounted {
  readonly wrapper: VueWrapper
  readonly router: Router
}

/** Puts a component into the page as the app does: with language, routes and dialogs. */
export async function show(component: Component, props: object = {}, at = '/'): Promise<Mounted> {
  const pinia = createPinia()
  setActivePinia(pinia)
  const router = createRouter({
    history: createMemoryHistory(),
    routes: [
      { path: '/', name: 'landing', component: NOTHING },
      { path: '/auth', name: 'auth', component: NOTHING },
      { path: '/chat/:roomId?', name: 'chat', component: NOTHING },
    ],
  })
  await router.push(at)
  const wrapper = mount(component, {
    props: props as Record<string, unknown>,
    global: { plugins: [pinia, i18n, router] },
    attachTo: document.body,
  })
  return { wrapper, router }
}

/** Lets what was promised happen. */
export const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0))
