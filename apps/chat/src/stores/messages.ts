import { defineStore } from 'pinia'
import { ref } from 'vue'
import type { MessagesStore } from './types'

export const useMessagesStore = defineStore('messages', () => {
  return {
    commands: ref<MessagesStore['commands']>([]),
    timeline: () => [],
    hasOlder: () => false,
    unreadSince: () => null,
    loadOlder: (): Promise<never> => Promise.reject(new Error('not there yet')),
    reveal: (): Promise<never> => Promise.reject(new Error('not there yet')),
    send: (): Promise<never> => Promise.reject(new Error('not there yet')),
    edit: (): Promise<never> => Promise.reject(new Error('not there yet')),
    remove: (): Promise<never> => Promise.reject(new Error('not there yet')),
    canEdit: () => false,
    canRemove: () => false,
    retry: (): Promise<never> => Promise.reject(new Error('not there yet')),
    discard: (): Promise<never> => Promise.reject(new Error('not there yet')),
    react: (): Promise<never> => Promise.reject(new Error('not there yet')),
    search: (): Promise<never> => Promise.reject(new Error('not there yet')),
    prepareImage: (): Promise<never> => Promise.reject(new Error('not there yet')),
    draft: () => ({ text: '', replyTo: null }),
    setDraft: (): void => undefined,
  }
})
