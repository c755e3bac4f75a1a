/** Notifications while the app is closed. */
export const push = {
  push: {
    label: 'Notifications while the app is closed',
    text: 'For direct messages, mentions and calls. The push service of your browser sees neither names nor texts.',
    blocked: 'The browser blocks notifications from this page. Allow them in the browser settings for this page.',
    mentions: 'Mentions in encrypted rooms',
    mentionsText: 'The server then learns whom your messages mention, so that it can notify these people.',
    dm: 'New direct message',
    mention: 'You were mentioned',
    call: 'A call has started',
  },
}
