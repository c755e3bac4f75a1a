import { createRouter, createWebHistory, type RouteRecordRaw, type Router, type RouterHistory } from 'vue-router'
import type { Console } from './session'

/** The pages in the order of the menu, by section. */
export const SECTIONS = {
  state: ['state', 'sessions', 'doors', 'metrics', 'policy', 'log'],
  people: ['people', 'registration', 'rooms', 'reports', 'audit'],
} as const
export type PageName = (typeof SECTIONS)[keyof typeof SECTIONS][number]

const PAGES: Readonly<Record<PageName, () => Promise<unknown>>> = {
  state: () => import('./pages/StatePage.vue'),
  sessions: () => import('./pages/SessionsPage.vue'),
  doors: () => import('./pages/DoorsPage.vue'),
  metrics: () => import('./pages/MetricsPage.vue'),
  policy: () => import('./pages/PolicyPage.vue'),
  log: () => import('./pages/LogPage.vue'),
  people: () => import('./pages/PeoplePage.vue'),
  registration: () => import('./pages/RegistrationPage.vue'),
  rooms: () => import('./pages/RoomsPage.vue'),
  reports: () => import('./pages/ReportsPage.vue'),
  audit: () => import('./pages/AuditPage.vue'),
}

/** The pages below `/console`. Who is not signed in comes to `/console/sign-in` first, and then to where they wanted. */
export function createConsoleRouter(session: Console, history: RouterHistory = createWebHistory()): Router {
  const pages = Object.entries(PAGES).map(
    ([name, component]) => ({ path: `/console/${name}`, name, component }) as RouteRecordRaw,
  )
  const router = createRouter({
    history,
    routes: [
      { path: '/console', redirect: { name: 'state' } },
      { path: '/console/sign-in', name: 'sign-in', component: () => import('./pages/SignInPage.vue') },
      { path: '/console/reset', name: 'reset', component: () => import('./pages/ResetPage.vue') },
      ...pages,
      { path: '/:rest(.*)*', redirect: { name: 'state' } },
    ],
  })
  router.beforeEach(async (to) => {
    if (to.name === 'reset') return true
    // Without the relay the sign-in page says what is wrong.
    await session.restore().catch(() => undefined)
    const isSignIn = to.name === 'sign-in'
    if (!session.state.who) return isSignIn || { name: 'sign-in', query: { next: to.fullPath } }
    return isSignIn ? { name: 'state' } : true
  })
  return router
}
