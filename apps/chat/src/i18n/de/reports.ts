import type { reports as english } from '../en/reports'

export const reports: typeof english = {
  report: {
    action: 'Melden',
    title: 'Diese Nachricht melden?',
    text: 'Die Nachricht und die Angabe, wer sie geschrieben hat, gehen an die Administratoren dieses Servers, auch aus einem verschlüsselten Raum. Die anderen Mitglieder sehen die Meldung nicht.',
    reason: 'Was stimmt damit nicht? (optional)',
    send: 'Meldung senden',
    sent: 'Die Meldung wurde gesendet.',
  },
}
