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

const en = {
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

/** The texts that every language must have; the compiler compares each language with it. */
export type Messages = typeof en

type Leaves<Tree> = {
  [Name in keyof Tree & string]: Tree[Name] extends string ? Name : `${Name}.${Leaves<Tree[Name]>}`
}[keyof Tree & string]

/** The key of a text, e.g. `common.cancel`. */
export type MessageKey = Leaves<Messages>

export default en
