/**
 * The recovery phrase: 12 words (128 bits, BIP-39's English list) that a person keeps on paper. The key that is derived
 * from it encrypts the backup of the keys. The word list is loaded when somebody needs it.
 */
import { fromBase64, utf8 } from './bytes'

const ITERATIONS = 600_000
const BITS = 128

async function bip39() {
  const [library, { wordlist }] = await Promise.all([
    import('@scure/bip39'),
    import('@scure/bip39/wordlists/english.js'),
  ])
  return { ...library, wordlist }
}

export async function newPhrase(): Promise<string[]> {
  const { generateMnemonic, wordlist } = await bip39()
  return generateMnemonic(wordlist, BITS).split(' ')
}

/** The words of a phrase as it was typed; null: a word or the checksum is wrong. */
export async function parsePhrase(text: string): Promise<string[] | null> {
  const words = text
    .toLowerCase()
    .split(/[^a-z]+/)
    .filter((word) => word !== '')
  const { validateMnemonic, wordlist } = await bip39()
  return words.length === 12 && validateMnemonic(words.join(' '), wordlist) ? words : null
}

/** PBKDF2-HMAC-SHA-256 of the words with single spaces between them. The key cannot be exported. */
export async function phraseKey(words: readonly string[], salt: string): Promise<CryptoKey> {
  const material = await crypto.subtle.importKey('raw', utf8(words.join(' ')), 'PBKDF2', false, ['deriveKey'])
  const pbkdf2 = { name: 'PBKDF2', hash: 'SHA-256', salt: fromBase64(salt), iterations: ITERATIONS }
  return crypto.subtle.deriveKey(pbkdf2, material, { name: 'AES-GCM', length: 256 }, false, ['encrypt', 'decrypt'])
}
