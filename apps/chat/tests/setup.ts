import 'fake-indexeddb/auto'
import fc from 'fast-check'

// The same inputs in every run: a failure is a change of the code, not of the dice.
fc.configureGlobal({ seed: 20_251_124, numRuns: 100 })
