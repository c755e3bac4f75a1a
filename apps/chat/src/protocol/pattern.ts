/**
 * Whether an address matches a pattern: `*` stands for one segment, `**` for any number of segments, and `*` at the end of
 * a segment for the rest of it.
 */
export function matches(pattern: string, address: string): boolean {
  return matchesFrom(pattern.split('/'), 0, address.split('/'), 0)
}

function matchesFrom(pattern: readonly string[], at: number, address: readonly string[], from: number): boolean {
  for (; at < pattern.length; at++, from++) {
    if (pattern[at] === '**') {
      for (let rest = from; rest <= address.length; rest++) {
        if (matchesFrom(pattern, at + 1, address, rest)) return true
      }
      return false
    }
    const [wanted, segment] = [pattern[at] as string, address[from]]
    if (segment === undefined) return false
    const fits = wanted.endsWith('*') ? segment.startsWith(wanted.slice(0, -1)) : segment === wanted
    if (!fits) return false
  }
  return from === address.length
}
