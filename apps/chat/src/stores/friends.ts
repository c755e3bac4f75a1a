import { defineStore } from 'pinia'
import { ref } from 'vue'
import type { FriendsStore } from './types'

export const useFriendsStore = defineStore('friends', () => {
  return {
    friends: ref<FriendsStore['friends']>([]),
    incoming: ref<FriendsStore['incoming']>([]),
    outgoing: ref<FriendsStore['outgoing']>([]),
    isFriend: () => false,
    request: (): Promise<never> => Promise.reject(new Error('not there yet')),
    accept: (): Promise<never> => Promise.reject(new Error('not there yet')),
    decline: (): Promise<never> => Promise.reject(new Error('not there yet')),
    remove: (): Promise<never> => Promise.reject(new Error('not there yet')),
    openDirectMessage: (): Promise<never> => Promise.reject(new Error('not there yet')),
  }
})
