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
    blocked: 'You have blocked {name}: you see nothing from this person, and get no messages or requests.',
    confirmTitle: 'Block {name}?',
    confirmText:
      'You no longer see anything from this person. If you are friends, the friendship ends. They are not notified.',
  },
}
