/** Scales images down so that they fit one frame, encrypted and together with a long text. */
import { Failure } from '@/protocol/errors'
import { isImage } from '@/protocol/shapes'

/** Encryption adds a third; a text of 2000 three-byte characters must fit beside it. */
export const MAX_DATA_URL = 40_000
const MAX_FILE_BYTES = 30 * 1024 * 1024
const TYPES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif']
const SIDES = [1280, 1024, 800, 640, 480, 320, 200]
const QUALITIES = [0.8, 0.6, 0.4]

export function readDataUrl(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result as string)
    reader.onerror = () => reject(new Failure('invalid', 'file cannot be read', { reason: 'notAnImage' }))
    reader.readAsDataURL(blob)
  })
}

async function decodeImage(file: Blob): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(file)
  } catch {
    throw new Failure('invalid', 'not an image that this browser decodes', { reason: 'notAnImage' })
  }
}

async function scaledTo(bitmap: ImageBitmap, side: number, quality: number): Promise<Blob> {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height))
  const [width, height] = [bitmap.width, bitmap.height].map((edge) => Math.max(1, Math.round(edge * scale)))
  const canvas = new OffscreenCanvas(width as number, height as number)
  const context = canvas.getContext('2d') as OffscreenCanvasRenderingContext2D
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height)
  const webp = await canvas.convertToBlob({ type: 'image/webp', quality })
  // Browsers that cannot write WebP give a PNG, which is larger.
  return webp.type === 'image/webp' ? webp : canvas.convertToBlob({ type: 'image/jpeg', quality })
}

/** The longest side of a picture that is sent as a file. */
const PICTURE_SIDE = 1600
const PICTURE_QUALITY = 0.85
/** Up to this size, a picture that is small enough and cannot have been made by a camera is sent unchanged. */
const UNCHANGED_BYTES = 2 * 1024 * 1024
const UNCHANGED_TYPES = ['image/png', 'image/gif', 'image/webp']

/** A picture as it is sent as a file: at most 1600 pixels long, without what a camera wrote into it. */
export async function preparePicture(file: Blob): Promise<Blob> {
  if (file.size > MAX_FILE_BYTES)
    throw new Failure('tooLarge', 'image file larger than 30 MiB', { reason: 'imageTooLarge' })
  const bitmap = await decodeImage(file)
  try {
    const fits = Math.max(bitmap.width, bitmap.height) <= PICTURE_SIDE
    if (fits && file.size <= UNCHANGED_BYTES && UNCHANGED_TYPES.includes(file.type)) return file
    return await scaledTo(bitmap, PICTURE_SIDE, PICTURE_QUALITY)
  } finally {
    bitmap.close()
  }
}

/**
 * A `data:` URL of the image in a file, scaled down to fit one frame.
 *
 * @throws {Failure} `invalid` if the file is not an image, `tooLarge` if it cannot be made small enough.
 */
export async function prepareImage(file: Blob): Promise<string> {
  if (file.size > MAX_FILE_BYTES)
    throw new Failure('tooLarge', 'image file larger than 30 MiB', { reason: 'imageTooLarge' })
  if (TYPES.includes(file.type) && file.size <= (MAX_DATA_URL * 3) / 4 - 64) {
    const asItIs = await readDataUrl(file)
    // A file that fits is sent unchanged, which keeps animations; decoding it proves that it is an image.
    ;(await decodeImage(file)).close()
    if (isImage(asItIs)) return asItIs
  }
  const bitmap = await decodeImage(file)
  try {
    for (const side of SIDES) {
      for (const quality of QUALITIES) {
        const dataUrl = await readDataUrl(await scaledTo(bitmap, side, quality))
        if (dataUrl.length <= MAX_DATA_URL && isImage(dataUrl)) return dataUrl
      }
    }
  } finally {
    bitmap.close()
  }
  throw new Failure('tooLarge', 'image cannot be scaled down to one frame', { reason: 'imageTooLarge' })
}
