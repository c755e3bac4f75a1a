/** Slash commands. */
import type { Random } from '@/protocol/clock'

interface Command {
  name: string
  usage: string
  /** The text to send instead; null: the arguments are not valid for this command. */
  run: (args: string, random: Random, ownName: string) => string | null
}

const MAX_DICE = 100
const MAX_SIDES = 1000
const SHRUG = '¯\\_(ツ)_/¯'

function roll(args: string, random: Random): string | null {
  const match = /^(?:(\d{1,3})?[dw](\d{1,4}))?$/i.exec(args.trim())
  if (!match) return null
  const [dice, sides] = [Number(match[1] ?? 1), Number(match[2] ?? 6)]
  if (dice < 1 || dice > MAX_DICE || sides < 2 || sides > MAX_SIDES) return null
  const rolled = Array.from({ length: dice }, () => 1 + Math.floor(random() * sides))
  const total = rolled.reduce((sum, each) => sum + each, 0)
  return `🎲 ${dice}d${sides}: **${total}**${dice > 1 ? ` (${rolled.join(', ')})` : ''}`
}

export const COMMANDS: readonly Command[] = [
  { name: 'roll', usage: '/roll 2d6', run: roll },
  { name: 'shrug', usage: '/shrug …', run: (args) => `${args.trim()} ${SHRUG}`.trim() },
  { name: 'me', usage: '/me …', run: (args, _random, ownName) => (args.trim() ? `*${ownName} ${args.trim()}*` : null) },
]

/** The text to send for an input; unknown commands are sent unchanged. */
export function expandCommand(text: string, random: Random, ownName: string): string {
  const match = /^\/([a-z]+)(?:\s+([\s\S]*))?$/.exec(text)
  const command = COMMANDS.find((each) => each.name === match?.[1])
  return command?.run(match?.[2] ?? '', random, ownName) ?? text
}
