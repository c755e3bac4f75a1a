import { defineStore } from 'pinia'
import { computed, shallowRef } from 'vue'
import type { Status } from '@/protocol/connection'
import { useRuntime } from './runtime'

export const useConnectionStore = defineStore('connection', () => {
  const runtime = useRuntime()
  const status = shallowRef<Status>(runtime.connection.status)
  runtime.on('status', (next) => (status.value = next))
  return {
    phase: computed(() => status.value.phase),
    online: computed(() => status.value.phase === 'online'),
    sessionId: computed(() => status.value.sessionId),
    serverName: computed(() => status.value.serverName),
    retryAtMs: computed(() => status.value.retryAtMs),
    reason: computed(() => status.value.reason),
    retryNow: () => runtime.connection.retryNow(),
  }
})
