/** Records a voice message: Opus, with how loud it was, at most five minutes. */
import { Failure } from '@/protocol/errors'
import { WAVEFORM_STEPS } from '@/protocol/shapes'

export const MAX_RECORDING_S = 300
const SAMPLE_MS = 50
const BARS = 64
const BITS_PER_SECOND = 32_000
const TYPES = ['audio/webm;codecs=opus', 'audio/ogg;codecs=opus', 'audio/mp4']
/** Speech at the usual distance is about this loud, of 1. */
const LOUD = 0.25

export interface Recording {
  file: File
  seconds: number
  waveform: number[]
}

/** As many levels as a message shows: the loudest moment of each stretch, 0 to 31. */
export function waveformOf(loudness: readonly number[], bars = BARS): number[] {
  const count = Math.min(bars, loudness.length)
  return Array.from({ length: count }, (_, bar) => {
    const stretch = loudness.slice(
      Math.floor((bar * loudness.length) / count),
      Math.floor(((bar + 1) * loudness.length) / count),
    )
    return Math.round(Math.min(1, Math.max(...stretch) / LOUD) * WAVEFORM_STEPS)
  })
}

/** How loud a stretch of sound is: the root of its mean square. */
export function loudnessOf(samples: Float32Array): number {
  const sum = samples.reduce((total, sample) => total + sample * sample, 0)
  return Math.sqrt(sum / samples.length)
}

export class Recorder {
  private readonly loudness: number[] = []
  private readonly parts: Blob[] = []
  private readonly startedMs = performance.now()
  private readonly stopSampling: () => void
  private readonly recorder: MediaRecorder

  private constructor(
    private readonly stream: MediaStream,
    private readonly sound: AudioContext,
    type: string,
    private readonly tick: (seconds: number) => void,
  ) {
    this.recorder = new MediaRecorder(stream, { mimeType: type, audioBitsPerSecond: BITS_PER_SECOND })
    this.recorder.ondataavailable = ({ data }) => this.parts.push(data)
    const analyser = sound.createAnalyser()
    sound.createMediaStreamSource(stream).connect(analyser)
    const samples = new Float32Array(analyser.fftSize)
    const timer = window.setInterval(() => {
      analyser.getFloatTimeDomainData(samples)
      this.loudness.push(loudnessOf(samples))
      this.tick(this.seconds)
    }, SAMPLE_MS)
    this.stopSampling = () => window.clearInterval(timer)
    this.recorder.start()
  }

  /** Asks for the microphone and begins; `tick` is called with the seconds that have passed. */
  static async start(tick: (seconds: number) => void): Promise<Recorder> {
    const type = TYPES.find((each) => MediaRecorder.isTypeSupported(each))
    try {
      if (!type) throw new Error('no type')
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true })
      return new Recorder(stream, new AudioContext(), type, tick)
    } catch {
      throw new Failure('forbidden', 'no microphone', { reason: 'noMicrophone' })
    }
  }

  get seconds(): number {
    return (performance.now() - this.startedMs) / 1000
  }

  private release(): void {
    this.stopSampling()
    for (const track of this.stream.getTracks()) track.stop()
    void this.sound.close()
  }

  /** Ends it, and gives what was recorded. */
  async stop(): Promise<Recording> {
    const seconds = Math.min(MAX_RECORDING_S, this.seconds)
    await new Promise((resolve) => {
      this.recorder.onstop = resolve
      this.recorder.stop()
    })
    this.release()
    const type = this.recorder.mimeType.split(';')[0] ?? 'audio/webm'
    const file = new File(this.parts, `voice.${type.split('/')[1]}`, { type })
    return { file, seconds: Math.round(seconds * 10) / 10, waveform: waveformOf(this.loudness) }
  }

  /** Ends it, and forgets what was recorded. */
  cancel(): void {
    this.recorder.stop()
    this.release()
  }
}
