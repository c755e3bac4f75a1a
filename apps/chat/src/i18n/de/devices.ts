/** Geräte koppeln, und ein verlorener Kontoschlüssel. */
export const devices = {
  deviceLink: {
    scan: 'Oder scanne diesen Code mit einem anderen Gerät, auf dem du angemeldet bist:',
    qr: 'QR-Code zum Koppeln dieses Geräts',
    scanned: 'Du hast seinen Code gescannt. Sende die Schlüssel nur, wenn er auf deinem eigenen Gerät zu sehen war.',
    invite: 'Neues Gerät koppeln',
    inviteText: 'Scanne diesen Code mit dem neuen Gerät und melde dich dort an. Dann bittet es hier um die Schlüssel.',
    qrNew: 'QR-Code zum Koppeln eines neuen Geräts',
    invited: 'Es hat den Code auf diesem Bildschirm gescannt. Sende die Schlüssel nur, wenn es dein eigenes Gerät ist.',
    scannedOther:
      'Du hast den Code eines anderen Geräts gescannt. Übernimm die Schlüssel nur, wenn dieses Gerät dir gehört.',
    showBack: 'Die Schlüssel sind gesendet. Gib diesen Code auf dem neuen Gerät ein:',
    typeBack: 'Code auf dem anderen Gerät',
    typeBackHint:
      'Das andere Gerät zeigt ihn, nachdem du dort den Code von hier eingegeben hast. Er beweist, dass die Schlüssel von dort kommen.',
    take: 'Schlüssel übernehmen',
    lost: 'Alle anderen Geräte und die Wiederherstellungsphrase sind verloren',
    startOver: 'Neu anfangen',
    startOverTitle: 'Mit neuen Schlüsseln anfangen?',
    startOverText:
      'Dieses Gerät bekommt neue Schlüssel für dein Konto. Alte verschlüsselte Nachrichten bleiben hier unlesbar. Alle, mit denen du schreibst, werden gewarnt und müssen die neuen Schlüssel annehmen. Deine anderen Geräte sind nicht mehr bestätigt.',
    accountChanged:
      'Die Schlüssel des Kontos von {name} sind neu: Die alten sind verloren, oder jemand gibt sich als {name} aus. Frag auf anderem Weg nach, bevor du sie annimmst.',
    accountOwn: 'Die Schlüssel deines Kontos wurden ersetzt. Wenn du das nicht warst, ändere dein Passwort.',
  },
}
