/** Files on their way: to the relay, one after the other, and back. A message is sent when its file is there. */
import { defineStore } from 'pinia'
import { computed, ref, shallowReactive, watch } from 'vue'
import type { Seal } from '@/crypto/fileSeal'
import type { FileBounds } from '@/protocol/files'
import { Failure } from '@/protocol/errors'
import { fileName, OTHER_TYPE, showsAs, type FileInfo } from '@/protocol/shapes'
import { useConnectionStore } from './connection'
import { useMessagesStore } from './messages'
import { useNotificationsStore } from './notifications'
import { useRuntime } from './runtime'
import type { FileMessage, RoomId, Upload } from './types'

/** Files that are kept open: pictures and voice messages that somebody looks at again. */
const MAX_OPEN = 8
const PROGRESS_STEPS = 100

interface Job {
  readonly file: File
  readonly message: FileMessage
  readonly given: AbortController
}

export const useFilesStore = defineStore('files', () => {
  const runtime = useRuntime()
  const connection = useConnectionStore()
  const messages = useMessagesStore()
  const notifications = useNotificationsStore()

  /** undefined: not asked yet. */
  const bounds = ref<FileBounds | null | undefined>(undefined)
  const uploads = shallowReactive(new Map<number, Upload>())
  const jobs = new Map<number, Job>()
  const opened = new Map<string, Promise<Blob>>()
  let asking: Promise<FileBounds | null> | null = null
  let working = false
  let count = 0

  const token = (): string => runtime.token ?? ''

  function ask(): Promise<FileBounds | null> {
    asking ??= runtime.files
      .bounds()
      .then((told) => (bounds.value = told))
      .finally(() => (asking = null))
    return asking
  }

  /** Without an answer there may be files all the same: it is asked again when somebody sends one. */
  function askQuietly(): void {
    if (bounds.value === undefined) ask().catch(() => undefined)
  }

  function put(id: number, change: Partial<Upload>): void {
    const upload = uploads.get(id)
    if (upload) uploads.set(id, { ...upload, ...change })
  }

  function send(roomId: RoomId, file: File, message: FileMessage = {}): void {
    count += 1
    jobs.set(count, { file, message, given: new AbortController() })
    const { name, size } = file
    uploads.set(count, { id: count, roomId, name, size, sent: 0, state: 'waiting', failure: null })
    void work()
  }

  /** Sends what waits, one file at a time, as long as there is a network. */
  async function work(): Promise<void> {
    if (working) return
    working = true
    try {
      for (let next = firstWaiting(); next; next = firstWaiting()) {
        const goesOn = await attempt(next)
        if (!goesOn) break
      }
    } finally {
      working = false
    }
  }

  const firstWaiting = (): Upload | undefined => [...uploads.values()].find(({ state }) => state === 'waiting')

  /** Returns whether the others may be tried, too. */
  async function attempt({ id, roomId }: Upload): Promise<boolean> {
    const job = jobs.get(id)
    if (!job) return uploads.delete(id)
    try {
      await transfer(id, roomId, job)
      forget(id)
    } catch (error) {
      if (job.given.signal.aborted) return true
      const failure = error instanceof Failure ? error : new Failure('server', String(error))
      if (failure.kind === 'network') {
        // It is tried again when the network is back.
        put(id, { state: 'waiting', sent: 0 })
        return false
      }
      put(id, { state: 'failed', failure })
    }
    return true
  }

  function forget(id: number): void {
    uploads.delete(id)
    jobs.delete(id)
  }

  const isEncrypted = (roomId: RoomId): boolean => runtime.rooms.get(roomId)?.encryption !== 'off'

  async function transfer(id: number, roomId: RoomId, job: Job): Promise<void> {
    put(id, { state: 'preparing' })
    const { sealFile, TAG_BYTES } = await import('@/crypto/fileSeal')
    const limits = bounds.value ?? (await ask())
    if (!limits) throw new Failure('missing', 'this relay takes no files', { reason: 'noFiles' })
    const { content, type } = await prepared(job.file)
    for (;;) {
      const encrypted = isEncrypted(roomId)
      const plain = await content.arrayBuffer()
      if (plain.byteLength === 0) throw new Failure('invalid', 'an empty file', { reason: 'emptyFile' })
      if (plain.byteLength + (encrypted ? TAG_BYTES : 0) > limits.maxFile)
        throw new Failure('tooLarge', 'the file is too large', { reason: 'fileTooBig' })
      const { bytes, seal } = await sealFile(plain, encrypted)
      const fileId = await upload(id, bytes, job)
      // Somebody may have turned the encryption on meanwhile; then the relay must not keep the plain bytes.
      if (encrypted || !isEncrypted(roomId)) return post(roomId, job, { fileId, type, size: plain.byteLength, seal })
      await runtime.files.remove(token(), fileId)
    }
  }

  async function upload(id: number, bytes: ArrayBuffer, { given }: Job): Promise<string> {
    const size = bytes.byteLength
    put(id, { state: 'sending', sent: 0, size })
    let told = 0
    const progress = (sent: number): void => {
      const step = Math.floor((sent / size) * PROGRESS_STEPS)
      if (step !== told) put(id, { sent: Math.min(sent, size) })
      told = step
    }
    return runtime.files.upload(token(), new Blob([bytes]), { signal: given.signal, progress })
  }

  async function post(
    roomId: RoomId,
    { file, message, given }: Job,
    { fileId, type, size, seal }: { fileId: string; type: string; size: number; seal: Seal },
  ): Promise<void> {
    const { text = '', replyTo, image, seconds = null, waveform = null } = message
    const name = fileName({ name: file.name })
    const info: FileInfo = { id: fileId, name, type, size, ...seal, seconds, waveform }
    if (given.signal.aborted) return runtime.files.remove(token(), fileId)
    await messages.send(roomId, { text, ...(replyTo && { replyTo }), ...(image && { image }), file: info })
  }

  function retry(id: number): void {
    put(id, { state: 'waiting', failure: null, sent: 0 })
    void work()
  }

  function cancel(id: number): void {
    jobs.get(id)?.given.abort()
    forget(id)
  }

  function open(file: FileInfo): Promise<Blob> {
    const known = opened.get(file.id)
    opened.delete(file.id)
    const blob = known ?? fetchFile(file)
    opened.set(file.id, blob)
    for (const id of [...opened.keys()].slice(0, -MAX_OPEN)) opened.delete(id)
    // What failed is tried again the next time.
    blob.catch(() => opened.delete(file.id))
    return blob
  }

  async function fetchFile(file: FileInfo): Promise<Blob> {
    const transfer = { signal: new AbortController().signal, progress: () => undefined }
    const { openFile } = await import('@/crypto/fileSeal')
    const content = await openFile(await runtime.files.download(token(), file.id, transfer), file)
    return new Blob([content], { type: showsAs(file) === 'download' ? OTHER_TYPE : file.type })
  }

  async function save(file: FileInfo): Promise<void> {
    const url = URL.createObjectURL(new Blob([await open(file)], { type: OTHER_TYPE }))
    const link = document.createElement('a')
    link.href = url
    link.download = file.name
    link.click()
    // After the browser has begun to read it.
    runtime.platform.clock.after(60_000, () => URL.revokeObjectURL(url))
  }

  function end(): void {
    for (const { given } of jobs.values()) given.abort()
    for (const map of [jobs, uploads, opened]) map.clear()
    bounds.value = undefined
  }

  watch(
    () => connection.online,
    (online) => {
      if (!online) return
      askQuietly()
      void work()
    },
  )
  runtime.on('begin', askQuietly)
  runtime.on('wake', () => void work())
  runtime.on('end', end)

  return {
    enabled: computed(() => (bounds.value === undefined ? null : bounds.value !== null)),
    uploads: (roomId: RoomId) => [...uploads.values()].filter((upload) => upload.roomId === roomId),
    send,
    retry,
    cancel,
    open,
    save: (file: FileInfo) => save(file).catch(notifications.fail),
  }
})

/** A picture is scaled down, which also drops what a camera wrote into it; other files stay as they are. */
async function prepared(file: File): Promise<{ content: Blob; type: string }> {
  const type = file.type.toLowerCase().split(';')[0]?.trim() || OTHER_TYPE
  if (showsAs({ type }) !== 'picture') return { content: file, type }
  const { preparePicture } = await import('./messages/images')
  const content = await preparePicture(file)
  return { content, type: content.type || type }
}
