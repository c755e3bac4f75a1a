import QRCode from 'qrcode'

/** Width of the empty margin in modules, as ISO/IEC 18004 requires. */
const QUIET_ZONE = 4

/** Encodes a text as a QR code: its size in modules, and an SVG path of the dark modules. */
export function qrPath(text: string): { size: number; path: string } {
  const { modules } = QRCode.create(text, { errorCorrectionLevel: 'M' })
  const parts: string[] = []
  for (let y = 0; y < modules.size; y += 1)
    for (let x = 0; x < modules.size; x += 1)
      if (modules.get(y, x)) parts.push(`M${x + QUIET_ZONE} ${y + QUIET_ZONE}h1v1h-1z`)
  return { size: modules.size + 2 * QUIET_ZONE, path: parts.join('') }
}
