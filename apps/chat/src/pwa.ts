/** Registers the service worker, by which the app can be installed and opened offline. */
export function registerServiceWorker(): void {
  if (!('serviceWorker' in navigator)) return
  window.addEventListener('load', () => {
    navigator.serviceWorker.register('/sw.js').catch(() => {
      // Refused, e.g. in a private window: the app works, but not offline.
    })
  })
}
