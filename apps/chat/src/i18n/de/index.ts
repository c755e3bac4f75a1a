import type { Messages } from '../en'
import { chat } from './chat'
import { dialogs } from './dialogs'
import { entry } from './entry'
import { files } from './files'
import { general } from './general'

const de: Messages = { ...general, ...entry, ...chat, ...dialogs, ...files }

export default de
