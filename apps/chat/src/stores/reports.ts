import { defineStore } from 'pinia'
import { address } from '@/protocol/addresses'
import { asValue } from '@/protocol/shapes'
import { useRuntime } from './runtime'
import type { ChatMessage } from './types'

const MAX_TEXT = 4_000
const MAX_REASON = 500

/** What members tell the administrators of the relay. */
export const useReportsStore = defineStore('reports', () => {
  const runtime = useRuntime()

  /** Sends a message as it is shown here, also one of an encrypted room, where nobody else could read it. */
  function send(message: ChatMessage, reason: string): Promise<void> {
    const { roomId, msgId, userId, name, text, timestamp } = message
    const value = asValue({
      roomId,
      message: { msgId, ...(userId && { userId }), from: name, text: text.slice(0, MAX_TEXT), timestamp },
      ...(reason.trim() && { reason: reason.trim().slice(0, MAX_REASON) }),
      from: runtime.self.name,
      timestamp: runtime.platform.clock.now(),
    })
    return runtime.connection.set(address.report(runtime.platform.newId()), value, { urgent: true })
  }

  return { send }
})
