/** Lets the app be installed and open without a connection. A browser without service workers does without. */
export function registerServiceWorker(): void {
  if (!('serviceWorker' in navigator)) return
  window.addEventListener('load', () => {
    navigator.serviceWorker.register('/sw.js').catch(() => {
      // Refused, e.g. in a private window: the app works all the same, only not offline.
    })
  })
}
