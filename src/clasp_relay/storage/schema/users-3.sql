-- Version 3 of users.db: tokens of devices, and invites to register.

-- Tokens that the operator made; sign-ins have theirs in "tokens". A row stays when its token is revoked or expired, so
-- that its subject is given to nobody else. Times are in Unix seconds.
CREATE TABLE device_tokens (
    -- What the operator knows it by.
    id TEXT PRIMARY KEY,
    -- SHA-256 of the token.
    digest BLOB UNIQUE NOT NULL,
    subject TEXT NOT NULL,
    -- For people; may be empty.
    name TEXT NOT NULL,
    -- The scopes, action:pattern, one a line.
    scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- NULL: never.
    expires_at INTEGER,
    revoked_at INTEGER
) WITHOUT ROWID;

CREATE INDEX device_tokens_by_subject ON device_tokens (subject);

-- Invites to register.
CREATE TABLE invites (
    -- SHA-256 of the invite.
    digest BLOB PRIMARY KEY,
    created_at INTEGER NOT NULL,
    -- NULL: never.
    expires_at INTEGER,
    -- How many may still register with it; the row goes with the last one.
    uses_left INTEGER NOT NULL
) WITHOUT ROWID;
