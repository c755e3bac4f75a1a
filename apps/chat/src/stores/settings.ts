import { defineStore } from 'pinia'
import { ref } from 'vue'
import type { SettingsStore } from './types'

export const useSettingsStore = defineStore('settings', () => {
  return {
    theme: ref<SettingsStore['theme']>('system'),
    locale: ref<SettingsStore['locale']>(null),
    desktopNotifications: ref<SettingsStore['desktopNotifications']>(false),
    sendReceipts: ref<SettingsStore['sendReceipts']>(false),
    collapsedGroups: ref<SettingsStore['collapsedGroups']>([]),
    recentEmojis: ref<SettingsStore['recentEmojis']>([]),
    set: (): void => undefined,
    noteEmoji: (): void => undefined,
    exportData: (): Promise<never> => Promise.reject(new Error('not there yet')),
    importData: (): Promise<never> => Promise.reject(new Error('not there yet')),
  }
})
