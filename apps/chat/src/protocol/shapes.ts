/**
 * Every value of the chat's conventions, read field by field. What others wrote is never spread into our objects: a
 * parser takes the fields it knows, of the types it knows, and gives null when a necessary one is missing.
 */
export {
  asValue,
  clip,
  DEFAULT_COLOR,
  isColor,
  isImage,
  MAX_QUOTE,
  recordOf,
  type RoomType,
  type Status,
} from './shapes/fields'
export * from './shapes/calls'
export * from './shapes/files'
export * from './shapes/handover'
export * from './shapes/history'
export * from './shapes/keys'
export * from './shapes/messages'
export * from './shapes/people'
export * from './shapes/rooms'
