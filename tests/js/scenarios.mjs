// What people do with the npm client. Run: node scenarios.mjs NAME URL
import assert from 'node:assert/strict'
import { connect, latest, list, roundTrip, subscribe, tell, told, until } from './lib.mjs'

const VALUES = [
  true, false, 0, 1, -1, 1.5, 2 ** 53, -(2 ** 53), 1e300, Infinity, -0, '', 'text', 'ünïcödé 漢字 🎛️',
  new Uint8Array([]), new Uint8Array([0, 255, 7]), [], [1, [2.5, 'three'], null], {},
  { z: 1, a: { ключ: new Uint8Array([1]), deep: [true, { x: null }] } },
]

const scenarios = {
  async gets_what_is_there_missing_and_deleted(one, two) {
    one.set('/there', 1)
    one.set('/deleted', 1)
    one.set('/deleted', null)
    await roundTrip(one)
    assert.equal(await two.get('/there'), 1)
    assert.equal(await two.get('/missing'), null)
    assert.equal(await two.get('/deleted'), null)
    assert.equal(one.session.length, 36)
    assert.notEqual(one.session, two.session)
  },

  async gets_every_value_back_as_it_was_set(one, two, url) {
    const live = await subscribe(two, '/values/**')
    VALUES.forEach((value, index) => one.set(`/values/${index}`, value))
    await roundTrip(one)
    await until(() => live.length === VALUES.length, 'all values came')
    assert.deepEqual(live.map(([, value]) => value), VALUES)
    const three = await connect(url)
    const shown = latest(await subscribe(three, '/values/*'))
    VALUES.forEach((value, index) => assert.deepEqual(shown[`/values/${index}`], value))
    for (const [index, value] of VALUES.entries()) assert.deepEqual(await three.get(`/values/${index}`), value)
    three.close()
  },

  async subscribes_with_wildcards(one, two) {
    one.set('/light/1/on', true)
    await roundTrip(one)
    const star = await subscribe(two, '/light/*/on')
    const stars = await subscribe(two, '/light/**')
    assert.deepEqual(latest(star), { '/light/1/on': true })
    assert.deepEqual(latest(stars), { '/light/1/on': true })
    star.length = stars.length = 0
    for (const address of ['/light/2/on', '/light/2/level', '/other']) one.set(address, 2)
    await roundTrip(one)
    await roundTrip(two)
    assert.deepEqual(list(star), [['/light/2/on', 2]])
    assert.deepEqual(list(stars), [['/light/2/on', 2], ['/light/2/level', 2]])
  },

  async hears_its_own_set_and_not_its_own_event(one, two) {
    const mine = await subscribe(one, '/**')
    const theirs = await subscribe(two, '/**')
    one.set('/param', 1)
    one.emit('/event', { cue: 'intro' })
    one.emit('/empty')
    one.stream('/stream', 23.5)
    await roundTrip(one)
    await roundTrip(two)
    assert.deepEqual(list(mine), [['/param', 1]])
    assert.deepEqual(list(theirs), [['/param', 1], ['/event', { cue: 'intro' }], ['/empty', null], ['/stream', 23.5]])
  },

  async sends_a_gesture(one, two) {
    const came = await subscribe(two, '/touch/*')
    one.gesture('/touch/0', 7, 'start', { x: 0 })
    for (let x = 1; x < 20; x++) one.gesture('/touch/0', 7, 'move', { x })
    one.gesture('/touch/0', 7, 'end', { x: 20 })
    await roundTrip(one)
    await roundTrip(two)
    const steps = came.map(([, value]) => value)
    assert(steps.every((step) => step.gestureId === 7))
    assert.deepEqual(steps.at(0), { x: 0, phase: 'start', gestureId: 7 })
    assert.deepEqual(steps.at(-2), { x: 19, phase: 'move', gestureId: 7 })
    assert.deepEqual(steps.at(-1), { x: 20, phase: 'end', gestureId: 7 })
  },

  async sends_a_bundle(one, two) {
    const came = await subscribe(two, '/**')
    one.bundle([{ set: ['/a', 1] }, { emit: ['/e', { t: 'ü' }] }, { set: ['/c', [1, null]] }])
    await roundTrip(one)
    await roundTrip(two)
    assert.deepEqual(list(came), [['/a', 1], ['/e', { t: 'ü' }], ['/c', [1, null]]])
  },

  async sends_a_bundle_for_later(one, two) {
    const came = []
    two.subscribe('/later', () => came.push(Date.now() * 1000))
    await roundTrip(two)
    const due = one.time() + 300_000
    one.bundle([{ set: ['/later', 1] }], { at: due })
    await until(() => came.length, 'the bundle is applied')
    assert(came[0] >= due - 50_000)
  },

  async sends_a_timeline(one, two) {
    const came = await subscribe(two, '/timeline')
    one.timeline('/timeline', [{ time: 0, value: 1 }])
    await roundTrip(one)
    await roundTrip(two)
    assert.deepEqual(list(came), [['/timeline', null]]) // no client puts keyframes on the wire
  },

  async unsubscribes(one, two) {
    const came = await subscribe(two, '/a')
    const others = await subscribe(two, '/b')
    came.unsubscribe()
    await roundTrip(two)
    one.set('/a', 1)
    one.set('/b', 1)
    await roundTrip(one)
    await until(() => others.length, 'the other one came')
    assert.deepEqual(list(came), [])
    assert.equal(two.cached('/a'), undefined)
  },

  async queries_its_local_list_of_signals(one) {
    assert.deepEqual(one.querySignals('/**'), []) // it never asks; nothing may be sent to it unasked
  },

  async subscribes_with_options(one, two) {
    const came = await subscribe(two, '/fast', { maxRate: 5 })
    for (let value = 0; value < 200; value++) one.set('/fast', value)
    await until(() => came.at(-1)?.[1] === 199, 'the last value came')
    assert(came.length < 100)
  },

  async learns_of_errors_and_goes_on(one) {
    console.error = () => {}
    one.set('no slash', 1)
    one.set('/a/*', 1)
    await roundTrip(one)
    assert.equal(one.getLastError().code, 200)
    assert.equal(one.getLastError().address, '/a/*')
    one.subscribe('no pattern', () => {})
    await roundTrip(one)
    assert.equal(one.getLastError().code, 202)
    one.set('/fine', 1)
    assert.equal(await one.get('/fine'), 1)
  },

  async takes_a_snapshot_of_many_params(one, _, url) {
    for (let index = 0; index < 2000; index++) one.set(`/many/${index}`, index)
    for (let index = 0; index < 5; index++) one.set(`/large/${index}`, 'x'.repeat(60_000))
    await roundTrip(one)
    const three = await connect(url)
    assert.equal(Object.keys(latest(await subscribe(three, '/many/*'))).length, 2000)
    assert.equal(Object.keys(latest(await subscribe(three, '/large/*'))).length, 5)
    three.close()
  },

  async fifty_at_once(one, two, url) {
    const clients = await Promise.all(Array.from({ length: 50 }, () => connect(url)))
    const came = await Promise.all(clients.map((client) => subscribe(client, '/fifty/*')))
    clients.forEach((client, number) => client.set(`/fifty/${number}`, number))
    await until(() => came.every((each) => Object.keys(latest(each)).length === 50), 'all fifty came to all fifty')
    clients.forEach((client) => client.close())
  },

  async fifty_beside_fifty_others(one, two, url) {
    const clients = await Promise.all(Array.from({ length: 50 }, () => connect(url)))
    const came = await Promise.all(clients.map((client) => subscribe(client, '/hundred/**')))
    tell('ready')
    await told('go')
    clients.forEach((client, number) => client.set(`/hundred/js/${number}`, number))
    await until(() => came.every((each) => Object.keys(latest(each)).length === 100), 'all hundred came to all fifty')
    clients.forEach((client) => client.close())
  },

  async reconnects_after_a_restart_and_finds_the_state(one, two, url) {
    const client = await connect(url, { reconnect: true, reconnectInterval: 200 })
    const came = await subscribe(client, '/kept/**')
    client.set('/kept/a', { a: new Uint8Array([0]) })
    await roundTrip(client)
    const reasons = []
    client.onDisconnect((reason) => reasons.push(reason))
    let attempts = 0
    client.onReconnect(() => attempts++)
    const first = client.session
    tell('restart')
    await told('restarted')
    await until(() => client.connected && client.session !== first, 'it is back')
    const other = await connect(url)
    assert.deepEqual(await other.get('/kept/a'), { a: new Uint8Array([0]) })
    await roundTrip(client)
    other.set('/kept/b', 2) // it has subscribed again by itself
    await until(() => latest(came)['/kept/b'] === 2, 'it hears of a change')
    assert.equal(reasons[0], 'going away')
    assert(attempts >= 1)
    client.close()
    other.close()
    return 'others are gone'
  },
}

const [name, url] = process.argv.slice(2)
const one = await connect(url)
const two = await connect(url)
if ((await scenarios[name](one, two, url)) === undefined) {
  await roundTrip(one)
  await roundTrip(two)
}
one.close()
two.close()
tell('done')
process.exit(0)
