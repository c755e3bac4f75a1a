import { chat } from './chat'
import { dialogs } from './dialogs'
import { entry } from './entry'
import { general } from './general'

const en = { ...general, ...entry, ...chat, ...dialogs }

/** What every language has to say. */
export type Messages = typeof en

export default en
