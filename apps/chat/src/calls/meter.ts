/** How loud a track is. A file of its own, since the page loads it first and the rest of a call when one is joined. */
/** Measures how loud a track is. */
export interface Meter {
  /** 0 to 1. */
  level: () => number
  close: () => void
}

export function openMeter(track: MediaStreamTrack): Meter {
  const context = new AudioContext()
  const analyser = context.createAnalyser()
  analyser.fftSize = 512
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser)
  const samples = new Float32Array(analyser.fftSize)
  return {
    level() {
      analyser.getFloatTimeDomainData(samples)
      return samples.reduce((loudest, sample) => Math.max(loudest, Math.abs(sample)), 0)
    },
    close: () => void context.close(),
  }
}
