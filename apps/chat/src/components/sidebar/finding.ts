/** How well a name fits what somebody types into the search field; the lists of rooms, people and groups share it. */

/** The name begins with it, one of its words does, it is in it somewhere, its letters are in it in this order. */
export type Fit = 0 | 1 | 2 | 3
/** The worst fit that is shown while something fits better. */
export const GOOD: Fit = 2
export const LOOSE: Fit = 3

/** null: it does not fit. Nothing typed fits everything. */
export function fitOf(name: string, typed: string): Fit | null {
  const text = name.toLocaleLowerCase()
  if (text.startsWith(typed)) return 0
  if (text.split(/[\s/_-]+/).some((word) => word.startsWith(typed))) return 1
  if (text.includes(typed)) return 2
  let at = 0
  for (const sign of text) if (typed.startsWith(sign, at)) at += sign.length
  return at === typed.length ? 3 : null
}

/** What fits, best first, in its own order where it fits alike. */
export function fitting<Named extends { readonly name: string }>(
  list: readonly Named[],
  typed: string,
  worst: Fit,
): Named[] {
  if (typed === '') return [...list]
  return list
    .map((each) => ({ each, fit: fitOf(each.name, typed) ?? Infinity }))
    .filter(({ fit }) => fit <= worst)
    .sort((one, other) => one.fit - other.fit)
    .map(({ each }) => each)
}
