import type { Messages } from '../en'
import { calls } from './calls'
import { chat } from './chat'
import { devices } from './devices'
import { dialogs } from './dialogs'
import { entry } from './entry'
import { files } from './files'
import { general } from './general'
import { people } from './people'
import { push } from './push'
import { reports } from './reports'

const de: Messages = {
  ...general,
  ...entry,
  ...chat,
  ...calls,
  ...devices,
  ...dialogs,
  ...files,
  ...people,
  ...push,
  ...reports,
}

export default de
