import type { Messages } from '../en'
import { calls } from './calls'
import { chat } from './chat'
import { dialogs } from './dialogs'
import { entry } from './entry'
import { general } from './general'

const de: Messages = { ...general, ...entry, ...chat, ...calls, ...dialogs }

export default de
