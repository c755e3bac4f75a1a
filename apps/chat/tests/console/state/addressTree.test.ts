import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AddressTree } from '@/console/state/addressTree'

const lines = (tree: AddressTree): string[] =>
  tree.rows().map(({ label, level, branch, open, filled }) => {
    const twist = branch ? (open ? 'v' : '>') : '-'
    return `${'  '.repeat(level - 1)}${twist} ${label}${filled ? '' : '/'}`
  })

function treeOf(...addresses: string[]): AddressTree {
  const tree = new AddressTree()
  for (const address of addresses) tree.add(address)
  return tree
}

describe('the tree of addresses', () => {
  it('has rows in natural order, the first level open', () => {
    const tree = treeOf('/light/10/level', '/light/2/level', '/light/2/color', '/sound')
    expect(lines(tree)).toEqual(['v light/', '  > 2/', '  - 10/level', '- sound'])
    tree.open('/light/2', true)
    expect(lines(tree)).toEqual(['v light/', '  v 2/', '    - color', '    - level', '  - 10/level', '- sound'])
    tree.open('/light', false)
    expect(lines(tree)).toEqual(['> light/', '- sound'])
  })

  it('puts what leads to one thing only into one row, until something branches off', () => {
    const tree = treeOf('/chat/room/a/meta')
    expect(lines(tree)).toEqual(['- chat/room/a/meta'])
    tree.add('/chat/room/b/meta')
    expect(lines(tree)).toEqual(['v chat/room/', '  - a/meta', '  - b/meta'])
    tree.add('/chat/room')
    expect(lines(tree)[0]).toBe('v chat/room')
  })

  it('tells places and numbers', () => {
    const tree = treeOf('/a/1', '/a/2/x', '/a/2/y', '/b')
    expect(tree.rows().map(({ path, count, position, siblings }) => [path, count, position, siblings])).toEqual([
      ['/a', 3, 1, 2],
      ['/a/1', 1, 1, 2],
      ['/a/2', 2, 2, 2],
      ['/b', 1, 2, 2],
    ])
  })

  it('opens and closes everything, and what is above an address', () => {
    const tree = treeOf('/a/b/c', '/a/b/d', '/a/e/f', '/a/e/g')
    tree.openAll(true)
    expect(tree.rows()).toHaveLength(7)
    tree.openAll(false)
    expect(lines(tree)).toEqual(['> a/'])
    tree.reveal('/a/e/g')
    expect(lines(tree)).toEqual(['v a/', '  > b/', '  v e/', '    - f', '    - g'])
  })

  it('gives the same list until it changes', () => {
    const tree = treeOf('/a', '/b')
    const before = tree.rows()
    expect(tree.add('/a')).toBe(false)
    expect(tree.remove('/c')).toBe(false)
    expect(tree.remove('/a/b')).toBe(false)
    expect(tree.rows()).toBe(before)
    expect(tree.remove('/a')).toBe(true)
    expect(lines(tree)).toEqual(['- b'])
    tree.clear()
    expect([tree.rows(), tree.size]).toEqual([[], 0])
  })

  it('holds exactly what was added and not removed, whatever the order', () => {
    const address = fc.array(fc.constantFrom('a', 'b', '1', '10'), { minLength: 1, maxLength: 4 })
    const steps = fc.array(fc.tuple(fc.boolean(), address), { maxLength: 60 })
    fc.assert(
      fc.property(steps, (all) => {
        const tree = new AddressTree()
        const model = new Set<string>()
        for (const [adds, segments] of all) {
          const one = `/${segments.join('/')}`
          expect(adds ? tree.add(one) : tree.remove(one)).toBe(adds ? !model.has(one) : model.has(one))
          if (adds) model.add(one)
          else model.delete(one)
          expect(tree.has(one)).toBe(adds)
        }
        tree.openAll(true)
        const rows = tree.rows()
        expect(
          rows
            .filter(({ filled }) => filled)
            .map(({ path }) => path)
            .sort(),
        ).toEqual([...model].sort())
        expect(tree.size).toBe(model.size)
        for (const { path, count } of rows) {
          expect(count).toBe([...model].filter((one) => one === path || one.startsWith(`${path}/`)).length)
        }
      }),
    )
  })
})
