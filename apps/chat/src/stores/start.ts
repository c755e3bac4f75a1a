/** Creates all stores, so that they receive the first event of the session. */
import { useBlocksStore } from './blocks'
import { useCallsStore } from './calls'
import { useConnectionStore } from './connection'
import { useDevicesStore } from './devices'
import { useFilesStore } from './files'
import { useFriendsStore } from './friends'
import { useGroupsStore } from './groups'
import { useMembersStore } from './members'
import { useMessagesStore } from './messages'
import { useNotificationsStore } from './notifications'
import { usePushStore } from './push'
import { useRoomsStore } from './rooms'
import { useSecurityStore } from './security'
import { useSettingsStore } from './settings'
import { useSyncStore } from './sync'

export function startStores(): void {
  useNotificationsStore()
  useConnectionStore()
  useSettingsStore()
  useBlocksStore()
  useRoomsStore()
  useMembersStore()
  useSecurityStore()
  useMessagesStore()
  useFilesStore()
  useFriendsStore()
  useDevicesStore()
  useGroupsStore()
  useCallsStore()
  usePushStore()
  useSyncStore()
}
