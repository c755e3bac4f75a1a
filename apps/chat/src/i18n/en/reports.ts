/** Telling the administrators about a message. */
export const reports = {
  report: {
    action: 'Report',
    title: 'Report this message?',
    text: 'The message and its author are sent to the administrators of this server, even from an encrypted room. The other members do not see the report.',
    reason: 'What is wrong with it? (optional)',
    send: 'Send report',
    sent: 'The report was sent.',
  },
}
