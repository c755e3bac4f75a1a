-- Version 6 of users.db: which session ids were given to whom, and the push subscriptions of browsers.

-- A client that connects again may go on to use the id of its first session, after a restart of the relay, too.
CREATE TABLE session_ids (
    session_id TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    -- Unix seconds: when it was given, or the session was last known to be connected.
    seen_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX session_ids_by_time ON session_ids (seen_at);

-- Where browsers want to be told of messages while no page is open (RFC 8030). Each endpoint is one subject's.
CREATE TABLE push_subscriptions (
    -- The URL of the push service, which is a secret between the browser and the relay.
    endpoint TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    -- The browser's public key, P-256 as an uncompressed point, and its secret (RFC 8291).
    p256dh BLOB NOT NULL,
    auth BLOB NOT NULL,
    -- Unix seconds.
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX push_subscriptions_by_subject ON push_subscriptions (subject, created_at);
