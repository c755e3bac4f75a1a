/** Linking a device, and a lost account key. */
export const devices = {
  deviceLink: {
    scan: 'Or scan this code with another device where you are signed in:',
    qr: 'QR code for linking this device',
    scanned: 'You have scanned its code. Send the keys only if it was on the screen of your own device.',
    invite: 'Link a new device',
    inviteText: 'Scan this code with the new device, and sign in there. Then it asks for the keys here.',
    qrNew: 'QR code for linking a new device',
    invited: 'It has scanned the code on this screen. Send the keys only if it is your own device.',
    scannedOther: 'You have scanned the code of another device. Take the keys only if that device is your own.',
    showBack: 'The keys were sent. Type this code on the new device:',
    typeBack: 'Code on the other device',
    typeBackHint:
      'The other device shows it after you have typed the code from here. It proves that the keys come from there.',
    take: 'Take the keys',
    lost: 'All other devices and the recovery phrase are lost',
    startOver: 'Start over',
    startOverTitle: 'Start over with new keys?',
    startOverText:
      'This device gets new keys for your account. Old encrypted messages stay unreadable here. Everybody you talk to is warned and has to accept the new keys. Your other devices lose their confirmation.',
    accountChanged:
      'The keys of {name}’s account are new: the old ones are lost, or somebody else pretends to be {name}. Ask in another way before you accept them.',
    accountOwn: 'The keys of your account were replaced. If that was not you, change your password.',
  },
}
