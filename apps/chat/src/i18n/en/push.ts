/** Notifications while the app is closed. */
export const push = {
  push: {
    label: 'Notifications while the app is closed',
    text: 'Tells you of direct messages, mentions and calls. The push service of your browser sees neither names nor texts.',
    blocked: 'Your browser blocks notifications of this page. Allow them in its settings for this page.',
    mentions: 'Mentions in encrypted rooms',
    mentionsText: 'The server then learns whom your messages mention, so that these people are told.',
    dm: 'New direct message',
    mention: 'You were mentioned',
    call: 'A call has begun',
  },
}
