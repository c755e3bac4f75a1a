/** Mitteilungen, solange die App geschlossen ist. */
export const push = {
  push: {
    label: 'Mitteilungen bei geschlossener App',
    text: 'Meldet Direktnachrichten, Erwähnungen und Anrufe. Der Push-Dienst deines Browsers erfährt weder Namen noch Texte.',
    blocked: 'Dein Browser blockiert Mitteilungen dieser Seite. Erlaube sie in seinen Einstellungen für diese Seite.',
    mentions: 'Erwähnungen in verschlüsselten Räumen',
    mentionsText: 'Der Server erfährt dann, wen deine Nachrichten erwähnen, damit diese Personen es gemeldet bekommen.',
    dm: 'Neue Direktnachricht',
    mention: 'Du wurdest erwähnt',
    call: 'Ein Anruf hat begonnen',
  },
}
