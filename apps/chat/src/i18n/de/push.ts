/** Benachrichtigungen, solange die App geschlossen ist. */
export const push = {
  push: {
    label: 'Benachrichtigungen bei geschlossener App',
    text: 'Für Direktnachrichten, Erwähnungen und Anrufe. Der Push-Dienst deines Browsers erfährt weder Namen noch Texte.',
    blocked:
      'Der Browser blockiert Benachrichtigungen dieser Seite. Erlaube sie in den Browsereinstellungen für diese Seite.',
    mentions: 'Erwähnungen in verschlüsselten Räumen',
    mentionsText:
      'Der Server erfährt dann, wen deine Nachrichten erwähnen, damit er diese Personen benachrichtigen kann.',
    dm: 'Neue Direktnachricht',
    mention: 'Du wurdest erwähnt',
    call: 'Ein Anruf hat begonnen',
  },
}
