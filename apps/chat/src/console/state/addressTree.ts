/** The tree of addresses that a pattern matches, and the rows of it that are open. */

/** One row on the screen. */
export interface TreeRow {
  /** The address that this row stands for: that of a value, or the beginning of several. */
  readonly path: string
  /** The segments that the row shows; more than one where nothing branches between them. */
  readonly label: string
  /** 1 for the topmost rows. */
  readonly level: number
  /** Whether rows are below it; then `open` says whether they are shown. */
  readonly branch: boolean
  readonly open: boolean
  /** Whether there is a value at `path` itself. */
  readonly filled: boolean
  /** How many values are at and below `path`. */
  readonly count: number
  /** The place among its siblings, from 1, and how many those are. */
  readonly position: number
  readonly siblings: number
}

interface Node {
  readonly segment: string
  readonly path: string
  readonly children: Map<string, Node>
  /** The children in order; null: to be sorted again. */
  sorted: Node[] | null
  filled: boolean
  count: number
}

/** Rows above this level are open until somebody closes them. */
const OPEN_LEVELS = 1

const order = new Intl.Collator('en', { numeric: true })
const makeNode = (segment: string, path: string): Node => ({
  segment,
  path,
  children: new Map(),
  sorted: null,
  filled: false,
  count: 0,
})
const segmentsOf = (address: string): string[] => address.split('/').slice(1)

function sortedChildren(node: Node): Node[] {
  node.sorted ??= [...node.children.values()].sort((one, other) => order.compare(one.segment, other.segment))
  return node.sorted
}

export class AddressTree {
  private root = makeNode('', '')
  private readonly chosen = new Map<string, boolean>()
  private flat: TreeRow[] | null = null

  /** How many addresses are in the tree. */
  get size(): number {
    return this.root.count
  }

  has(address: string): boolean {
    return this.find(address)?.filled === true
  }

  /** Adds an address; false: it is there already. */
  add(address: string): boolean {
    const path = [this.root]
    let node = this.root
    for (const segment of segmentsOf(address)) {
      let child = node.children.get(segment)
      if (!child) {
        child = makeNode(segment, `${node.path}/${segment}`)
        node.children.set(segment, child)
        node.sorted = null
      }
      path.push(child)
      node = child
    }
    if (node.filled) return false
    node.filled = true
    for (const part of path) part.count += 1
    this.flat = null
    return true
  }

  /** Removes an address, and what led to nothing else; false: it was not there. */
  remove(address: string): boolean {
    const path = [this.root]
    for (const segment of segmentsOf(address)) {
      const child = path.at(-1)?.children.get(segment)
      if (!child) return false
      path.push(child)
    }
    const last = path.at(-1)
    if (!last?.filled) return false
    last.filled = false
    path.forEach((node, index) => {
      node.count -= 1
      const parent = path[index - 1]
      if (node.count > 0 || !parent) return
      parent.children.delete(node.segment)
      parent.sorted = null
    })
    this.flat = null
    return true
  }

  /** Removes all addresses. What was opened and closed stays so. */
  clear(): void {
    this.root = makeNode('', '')
    this.flat = null
  }

  /** Opens or closes a row. */
  open(path: string, isOpen: boolean): void {
    this.chosen.set(path, isOpen)
    this.flat = null
  }

  /** Opens all that is above an address. */
  reveal(address: string): void {
    const segments = segmentsOf(address)
    for (let length = 1; length < segments.length; length++) {
      this.chosen.set(`/${segments.slice(0, length).join('/')}`, true)
    }
    this.flat = null
  }

  /** Opens or closes every row that there is. */
  openAll(isOpen: boolean): void {
    const visit = (node: Node): void => {
      for (const child of node.children.values()) {
        if (child.children.size) this.chosen.set(child.path, isOpen)
        visit(child)
      }
    }
    visit(this.root)
    this.flat = null
  }

  /** The rows that are open, in order. The same list until the tree changes. */
  rows(): readonly TreeRow[] {
    this.flat ??= this.flatten()
    return this.flat
  }

  private flatten(): TreeRow[] {
    const rows: TreeRow[] = []
    const visit = (parent: Node, level: number): void => {
      const children = sortedChildren(parent)
      children.forEach((child, index) => {
        const { node, label } = this.condensed(child)
        const branch = node.children.size > 0
        const open = branch && (this.chosen.get(node.path) ?? level <= OPEN_LEVELS)
        const { path, filled, count } = node
        rows.push({ path, label, level, branch, open, filled, count, position: index + 1, siblings: children.length })
        if (open) visit(node, level + 1)
      })
    }
    visit(this.root, 1)
    return rows
  }

  /** Follows a node that has no value and leads to one other node only: both take one row. */
  private condensed(first: Node): { node: Node; label: string } {
    let node = first
    let label = first.segment
    while (!node.filled && node.children.size === 1) {
      node = node.children.values().next().value as Node
      label += `/${node.segment}`
    }
    return { node, label }
  }

  private find(address: string): Node | undefined {
    let node: Node | undefined = this.root
    for (const segment of segmentsOf(address)) node = node?.children.get(segment)
    return node
  }
}
