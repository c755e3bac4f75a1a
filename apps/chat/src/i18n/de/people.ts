/** Gespräche mit Fremden, und blockierte Personen. */
export const people = {
  requests: {
    title: 'Nachrichtenanfragen',
    text: 'Nachricht an {name}',
    textHint:
      'Ihr könnt euch schreiben, sobald {name} die Anfrage annimmt. Diese erste Nachricht ist nicht Ende-zu-Ende-verschlüsselt.',
    send: 'Nachrichtenanfrage senden',
    sent: 'Anfrage gesendet',
    acceptNamed: 'Nachricht von {name} annehmen',
  },
  blocks: {
    title: 'Blockierte Personen',
    block: 'Blockieren',
    blockNamed: 'Blockieren: {name}',
    unblock: 'Blockierung aufheben',
    unblockNamed: 'Blockierung aufheben: {name}',
    blocked:
      'Du hast {name} blockiert: Du siehst nichts von dieser Person und bekommst von ihr keine Nachrichten oder Anfragen.',
    confirmTitle: '{name} blockieren?',
    confirmText:
      'Du siehst nichts mehr von dieser Person. Seid ihr befreundet, endet die Freundschaft. Die Person wird nicht benachrichtigt.',
  },
}
