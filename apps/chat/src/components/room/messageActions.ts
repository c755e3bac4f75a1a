import type { InjectionKey } from 'vue'
import type { ChatMessage, MsgId } from '@/stores'

/** Actions on a message in the list. */
export interface MessageActions {
  reply(message: ChatMessage): void
  edit(message: ChatMessage): void
  remove(message: ChatMessage): void
  react(message: ChatMessage, emoji: string): void
  copy(message: ChatMessage): void
  report(message: ChatMessage): void
  retry(message: ChatMessage): void
  discard(message: ChatMessage): void
  view(message: ChatMessage): void
  profile(message: ChatMessage): void
  jump(msgId: MsgId): void
}

export const MESSAGE_ACTIONS: InjectionKey<MessageActions> = Symbol('message actions')
