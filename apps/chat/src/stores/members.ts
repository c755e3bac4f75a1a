import { defineStore } from 'pinia'

export const useMembersStore = defineStore('members', () => {
  return {
    present: () => [],
    typing: () => [],
    bans: () => [],
    admins: () => [],
    rights: () => ({
      rename: false,
      visibility: false,
      password: false,
      promote: false,
      kick: false,
      ban: false,
      moderate: false,
      remove: false,
      encrypt: false,
    }),
    noteTyping: (): void => undefined,
    stopTyping: (): void => undefined,
    promote: (): Promise<never> => Promise.reject(new Error('not there yet')),
    demote: (): Promise<never> => Promise.reject(new Error('not there yet')),
    kick: (): Promise<never> => Promise.reject(new Error('not there yet')),
    ban: (): Promise<never> => Promise.reject(new Error('not there yet')),
    unban: (): Promise<never> => Promise.reject(new Error('not there yet')),
    profile: (): Promise<never> => Promise.reject(new Error('not there yet')),
  }
})
