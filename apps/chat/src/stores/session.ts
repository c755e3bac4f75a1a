import { defineStore } from 'pinia'
import { ref } from 'vue'
import type { SessionStore } from './types'

export const useSessionStore = defineStore('session', () => {
  return {
    ready: ref<SessionStore['ready']>(false),
    signedIn: ref<SessionStore['signedIn']>(false),
    guest: ref<SessionStore['guest']>(false),
    userId: ref<SessionStore['userId']>(''),
    username: ref<SessionStore['username']>(null),
    displayName: ref<SessionStore['displayName']>(''),
    color: ref<SessionStore['color']>(''),
    status: ref<SessionStore['status']>('online'),
    restore: (): Promise<void> => Promise.resolve(),
    continueAsGuest: (): Promise<never> => Promise.reject(new Error('not there yet')),
    register: (): Promise<never> => Promise.reject(new Error('not there yet')),
    login: (): Promise<never> => Promise.reject(new Error('not there yet')),
    changePassword: (): Promise<never> => Promise.reject(new Error('not there yet')),
    logout: (): Promise<never> => Promise.reject(new Error('not there yet')),
    setProfile: (): void => undefined,
  }
})
