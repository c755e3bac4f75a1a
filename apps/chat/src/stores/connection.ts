import { defineStore } from 'pinia'
import { ref } from 'vue'
import type { ConnectionStore } from './types'

export const useConnectionStore = defineStore('connection', () => {
  return {
    phase: ref<ConnectionStore['phase']>('idle'),
    online: ref<ConnectionStore['online']>(false),
    sessionId: ref<ConnectionStore['sessionId']>(null),
    serverName: ref<ConnectionStore['serverName']>(null),
    retryAtMs: ref<ConnectionStore['retryAtMs']>(null),
    reason: ref<ConnectionStore['reason']>(null),
    retryNow: (): void => undefined,
  }
})
