import { afterEach, describe, expect, it, vi } from 'vitest'
import { openMeter } from '@/calls/meter'
import { FakeTrack, installStreams } from './webrtc'

installStreams()

afterEach(() => vi.unstubAllGlobals())

describe('a meter', () => {
  it('tells the loudest sample of either sign, and closes what it has opened', () => {
    const closed: string[] = []
    let samples: number[] = []
    class FakeContext {
      createAnalyser = () => ({
        fftSize: 0,
        getFloatTimeDomainData: (into: Float32Array) => into.set(samples),
      })
      createMediaStreamSource = (stream: { getTracks: () => FakeTrack[] }) => ({
        connect: () => closed.push(`connected ${stream.getTracks()[0]?.kind}`),
      })
      close = async () => void closed.push('closed')
    }
    vi.stubGlobal('AudioContext', FakeContext)
    const meter = openMeter(new FakeTrack('audio') as unknown as MediaStreamTrack)
    for (const [heard, loudest] of [
      [[], 0],
      [[0.25, -0.5, 0.125], 0.5],
      [[0.75, -0.5], 0.75],
    ] as const) {
      samples = [...heard, ...Array<number>(512 - heard.length).fill(0)]
      expect(meter.level()).toBe(loudest)
    }
    meter.close()
    expect(closed).toEqual(['connected audio', 'closed'])
  })
})
