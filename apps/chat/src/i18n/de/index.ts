import type { Messages } from '../en'
import { calls } from './calls'
import { chat } from './chat'
import { dialogs } from './dialogs'
import { entry } from './entry'
import { general } from './general'
import { people } from './people'
import { reports } from './reports'

const de: Messages = { ...general, ...entry, ...chat, ...calls, ...dialogs, ...people, ...reports }

export default de
