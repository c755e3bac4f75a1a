/** Gespräche mit Fremden, und blockierte Leute. */
export const people = {
  requests: {
    title: 'Nachrichtenanfragen',
    text: 'Nachricht an {name}',
    textHint: 'Ihr könnt schreiben, sobald {name} annimmt. Diese erste Nachricht ist nicht Ende-zu-Ende-verschlüsselt.',
    send: 'Nachrichtenanfrage senden',
    sent: 'Anfrage gesendet',
    acceptNamed: 'Nachricht von {name} annehmen',
  },
  blocks: {
    title: 'Blockierte Personen',
    block: 'Blockieren',
    blockNamed: 'Blockieren: {name}',
    unblock: 'Nicht mehr blockieren',
    unblockNamed: 'Nicht mehr blockieren: {name}',
    blocked:
      'Du hast {name} blockiert: Du siehst nichts von dieser Person und bekommst keine Nachrichten und Anfragen.',
    confirmTitle: '{name} blockieren?',
    confirmText: 'Du siehst nichts mehr von dieser Person. Eine Freundschaft endet. Niemand erfährt davon.',
  },
}
