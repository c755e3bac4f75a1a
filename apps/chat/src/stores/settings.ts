import { defineStore } from 'pinia'
import { ref } from 'vue'
import { Failure } from '@/protocol/errors'
import { exportData as writeExport, MAX_FILE_BYTES, readExport, storeImport } from '@/storage/transfer'
import { useRuntime } from './runtime'
import type { SettingsStore, Theme } from './types'

const KEY = 'clasp-relay-settings'
const THEMES: readonly string[] = ['system', 'light', 'dark', 'contrast']
const MAX_RECENT = 24
const QUICK_EMOJIS: readonly string[] = ['👍️', '❤️', '😂', '🎉', '😮', '😢']

const asStrings = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : []

export const useSettingsStore = defineStore('settings', () => {
  const runtime = useRuntime()
  const { local, clock } = runtime.platform

  const theme = ref<Theme>('system')
  const locale = ref<string | null>(null)
  const desktopNotifications = ref(false)
  const sendReceipts = ref(true)
  const collapsedGroups = ref<readonly string[]>([])
  const recentEmojis = ref<readonly string[]>([])
  const quickEmojis = ref(QUICK_EMOJIS)

  function load(): void {
    let stored: Record<string, unknown>
    try {
      stored = JSON.parse(local.getItem(KEY) ?? '{}') as Record<string, unknown>
    } catch {
      // Not valid JSON: use the defaults.
      return
    }
    const { theme: kept } = stored
    if (typeof kept === 'string' && THEMES.includes(kept)) theme.value = kept as Theme
    if (typeof stored['locale'] === 'string') locale.value = stored['locale']
    desktopNotifications.value = stored['desktopNotifications'] === true
    sendReceipts.value = stored['sendReceipts'] !== false
    collapsedGroups.value = asStrings(stored['collapsedGroups'])
    recentEmojis.value = asStrings(stored['recentEmojis']).slice(0, MAX_RECENT)
    const quick = asStrings(stored['quickEmojis'])
    if (quick.length === QUICK_EMOJIS.length) quickEmojis.value = quick
  }

  function save(): void {
    const values = {
      theme: theme.value,
      locale: locale.value,
      desktopNotifications: desktopNotifications.value,
      sendReceipts: sendReceipts.value,
      collapsedGroups: collapsedGroups.value,
      recentEmojis: recentEmojis.value,
      quickEmojis: quickEmojis.value,
    }
    local.setItem(KEY, JSON.stringify(values))
  }

  const set: SettingsStore['set'] = (change) => {
    if (change.theme !== undefined) theme.value = change.theme
    if (change.locale !== undefined) locale.value = change.locale
    if (change.desktopNotifications !== undefined) desktopNotifications.value = change.desktopNotifications
    if (change.sendReceipts !== undefined) sendReceipts.value = change.sendReceipts
    if (change.quickEmojis !== undefined) quickEmojis.value = [...change.quickEmojis]
    if (change.collapsedGroups !== undefined) collapsedGroups.value = [...change.collapsedGroups]
    save()
  }

  function noteEmoji(emoji: string): void {
    recentEmojis.value = [emoji, ...recentEmojis.value.filter((other) => other !== emoji)].slice(0, MAX_RECENT)
    save()
  }

  async function exportData(): Promise<Blob> {
    const json = await writeExport(runtime.storage, clock.now())
    return new Blob([json], { type: 'application/json' })
  }

  async function importData(file: Blob): Promise<{ messages: number; keys: number }> {
    if (file.size > MAX_FILE_BYTES) throw new Failure('tooLarge', 'export file too large', { reason: 'fileTooLarge' })
    const counts = await storeImport(runtime.storage, await readExport(await file.text()))
    await runtime.reopen()
    return counts
  }

  load()
  return {
    theme,
    locale,
    desktopNotifications,
    sendReceipts,
    collapsedGroups,
    recentEmojis,
    quickEmojis,
    set,
    noteEmoji,
    exportData,
    importData,
  }
})
