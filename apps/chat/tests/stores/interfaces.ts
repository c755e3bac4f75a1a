/** Compiles only while every store is what components rely on. */
import * as stores from '@/stores'
import type * as types from '@/stores'

export const offered: {
  session: types.SessionStore
  connection: types.ConnectionStore
  rooms: types.RoomsStore
  members: types.MembersStore
  messages: types.MessagesStore
  files: types.FilesStore
  security: types.SecurityStore
  friends: types.FriendsStore
  devices: types.DevicesStore
  groups: types.GroupsStore
  calls: types.CallsStore
  settings: types.SettingsStore
  notifications: types.NotificationsStore
  push: types.PushStore
  reports: types.ReportsStore
} = null as unknown as {
  session: ReturnType<typeof stores.useSessionStore>
  connection: ReturnType<typeof stores.useConnectionStore>
  rooms: ReturnType<typeof stores.useRoomsStore>
  members: ReturnType<typeof stores.useMembersStore>
  messages: ReturnType<typeof stores.useMessagesStore>
  files: ReturnType<typeof stores.useFilesStore>
  security: ReturnType<typeof stores.useSecurityStore>
  friends: ReturnType<typeof stores.useFriendsStore>
  devices: ReturnType<typeof stores.useDevicesStore>
  groups: ReturnType<typeof stores.useGroupsStore>
  calls: ReturnType<typeof stores.useCallsStore>
  settings: ReturnType<typeof stores.useSettingsStore>
  notifications: ReturnType<typeof stores.useNotificationsStore>
  push: ReturnType<typeof stores.usePushStore>
  reports: ReturnType<typeof stores.useReportsStore>
}
