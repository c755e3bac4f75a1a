import { defineStore } from 'pinia'
import { ref } from 'vue'
import type { RoomsStore } from './types'

export const useRoomsStore = defineStore('rooms', () => {
  return {
    byId: ref<RoomsStore['byId']>({}),
    joined: ref<RoomsStore['joined']>([]),
    directMessages: ref<RoomsStore['directMessages']>([]),
    publicRooms: ref<RoomsStore['publicRooms']>([]),
    activeId: ref<RoomsStore['activeId']>(null),
    active: ref<RoomsStore['active']>(null),
    totalUnread: ref<RoomsStore['totalUnread']>(0),
    totalMentions: ref<RoomsStore['totalMentions']>(0),
    create: (): Promise<never> => Promise.reject(new Error('not there yet')),
    lookUp: (): Promise<never> => Promise.reject(new Error('not there yet')),
    join: (): Promise<never> => Promise.reject(new Error('not there yet')),
    leave: (): Promise<never> => Promise.reject(new Error('not there yet')),
    rename: (): Promise<never> => Promise.reject(new Error('not there yet')),
    setDescription: (): Promise<never> => Promise.reject(new Error('not there yet')),
    setVisibility: (): Promise<never> => Promise.reject(new Error('not there yet')),
    setPassword: (): Promise<never> => Promise.reject(new Error('not there yet')),
    setNamespace: (): Promise<never> => Promise.reject(new Error('not there yet')),
    enableEncryption: (): Promise<never> => Promise.reject(new Error('not there yet')),
    remove: (): Promise<never> => Promise.reject(new Error('not there yet')),
    setMuted: (): void => undefined,
    activate: (): void => undefined,
    markRead: (): void => undefined,
    inviteLink: () => '',
    parseInvite: () => null,
  }
})
