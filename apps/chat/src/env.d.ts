/// <reference types="vite/client" />

interface ImportMetaEnv {
  /** The relay's WebSocket, e.g. wss://relay.example/ws. Unset: `/ws` on the page's own origin. */
  readonly VITE_RELAY_URL?: string
  /** URL prefix before `/auth/…`. Unset: the page's own origin. */
  readonly VITE_AUTH_API_URL?: string
}

interface ImportMeta {
  readonly env: ImportMetaEnv
}
