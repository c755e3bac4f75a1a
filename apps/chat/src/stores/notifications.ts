import { defineStore } from 'pinia'
import { ref } from 'vue'
import type { NotificationsStore } from './types'

export const useNotificationsStore = defineStore('notifications', () => {
  return {
    notices: ref<NotificationsStore['notices']>([]),
    permission: ref<NotificationsStore['permission']>('default'),
    notify: (): void => undefined,
    fail: (): void => undefined,
    dismiss: (): void => undefined,
    askPermission: (): Promise<never> => Promise.reject(new Error('not there yet')),
  }
})
