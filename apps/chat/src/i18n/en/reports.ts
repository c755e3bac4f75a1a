/** Telling the administrators about a message. */
export const reports = {
  report: {
    action: 'Report',
    title: 'Report this message?',
    text: 'The message and its author are sent to the administrators of this server, also from an encrypted room. The other members do not see it.',
    reason: 'What is wrong with it? (optional)',
    send: 'Send report',
    sent: 'The report was sent.',
  },
}
