/** Conversations with strangers, and blocked people. */
export const people = {
  requests: {
    title: 'Message requests',
    text: 'Message to {name}',
    textHint: 'You can talk once {name} accepts. This first message is not end-to-end encrypted.',
    send: 'Send message request',
    sent: 'Request sent',
    acceptNamed: 'Accept the message of {name}',
  },
  blocks: {
    title: 'Blocked people',
    block: 'Block',
    blockNamed: 'Block: {name}',
    unblock: 'Unblock',
    unblockNamed: 'Unblock: {name}',
    blocked: 'You have blocked {name}: you see nothing of this person, and get no messages and requests.',
    confirmTitle: 'Block {name}?',
    confirmText: 'You see nothing of this person any more. A friendship ends. Nobody is told.',
  },
}
