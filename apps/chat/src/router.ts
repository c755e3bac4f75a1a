import type { Pinia } from 'pinia'
import { createRouter, createWebHistory, type RouteLocationRaw, type Router } from 'vue-router'
import { useSessionStore } from '@/stores'

/** Carries an invitation (`?join=room`) from page to page, so that no detour loses it. */
function withInvitation(name: string, join: unknown): RouteLocationRaw {
  return typeof join === 'string' ? { name, query: { join } } : { name }
}

/**
 * The pages: `/` asks for a name, `/auth` signs in, `/chat` talks.
 *
 * An invitation works for everybody: whoever has a stored session goes on to the chat, whoever has none is asked for a
 * name first and then goes on.
 */
export function createAppRouter(pinia: Pinia): Router {
  const router = createRouter({
    history: createWebHistory(),
    routes: [
      { path: '/', name: 'landing', component: () => import('@/views/LandingView.vue') },
      { path: '/auth', name: 'auth', component: () => import('@/views/AuthView.vue') },
      { path: '/chat/:roomId?', name: 'chat', component: () => import('@/views/ChatView.vue') },
      { path: '/:rest(.*)*', redirect: { name: 'landing' } },
    ],
  })
  router.beforeEach(async (to) => {
    const session = useSessionStore(pinia)
    await session.restore()
    if (to.name === 'chat' && !session.signedIn)
      return withInvitation('landing', to.query['join'] ?? to.params['roomId'])
    if (to.name === 'landing' && session.signedIn) return withInvitation('chat', to.query['join'])
    return true
  })
  return router
}
