import type { Pinia } from 'pinia'
import { createRouter, createWebHistory, type RouteLocationRaw, type Router } from 'vue-router'
import { useDevicesStore, useSessionStore } from '@/stores'

/** Keeps an invitation (`?join=room`) in the URL when the user is redirected. */
function withInvitation(name: string, join: unknown): RouteLocationRaw {
  return typeof join === 'string' ? { name, query: { join } } : { name }
}

/**
 * The pages: `/` asks for a name, `/auth` signs in, `/chat` talks.
 *
 * An invitation works with and without a stored session: with one, it opens the chat; without one, it asks for a name
 * first.
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
    // A new device that scanned a QR code signs in first.
    if (to.name === 'chat' && !session.signedIn) useDevicesStore(pinia).takeFragment(to.hash)
    if (to.name === 'chat' && !session.signedIn)
      return withInvitation('landing', to.query['join'] ?? to.params['roomId'])
    if (to.name === 'landing' && session.signedIn) return withInvitation('chat', to.query['join'])
    return true
  })
  return router
}
