import { useI18n } from '@/i18n'
import { useOverlayStore } from '@/components/overlay'
import { useMembersStore, type RoomId, type UserId } from '@/stores'

/** Removing and banning, which the list of people and the profile offer: both ask first, with the same words. */
export function useModeration(): {
  askKick(roomId: RoomId, userId: UserId, name: string): void
  askBan(roomId: RoomId, userId: UserId, name: string): void
} {
  const { t } = useI18n()
  const overlay = useOverlayStore()
  const members = useMembersStore()
  return {
    askKick: (roomId, userId, name) =>
      overlay.open({
        kind: 'confirm',
        title: t('panel.kickTitle', { name }),
        text: t('panel.kickText'),
        action: t('panel.kick'),
        run: () => members.kick(roomId, userId),
      }),
    askBan: (roomId, userId, name) =>
      overlay.open({
        kind: 'confirm',
        title: t('panel.banTitle', { name }),
        text: t('panel.banText'),
        action: t('panel.ban'),
        run: () => members.ban(roomId, userId),
      }),
  }
}
