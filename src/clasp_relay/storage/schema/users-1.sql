-- Version 1 of users.db (PRAGMA user_version). Version 0 is an empty file, or one that the Rust relay made:
-- it has the table "users" below and no other.

-- Kept exactly as the Rust relay has it, so that the file goes back there as it came. The name is unique by
-- its exact spelling only: such a file may hold both 'Alice' and 'alice'. created_at is in Unix seconds.
CREATE TABLE IF NOT EXISTS users (
    id TEXT PRIMARY KEY,
    username TEXT UNIQUE NOT NULL,
    password_hash TEXT NOT NULL,
    created_at INTEGER NOT NULL
);

-- What this relay knows about a user besides. A row may be missing (the Rust relay adds users without one);
-- whoever opens the file fills the gaps.
CREATE TABLE user_facts (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- The name irrespective of case; not unique, see above.
    folded_name TEXT NOT NULL,
    -- How often the user has changed the password; a sign-in that was verified before the change is void.
    password_changes INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX user_facts_by_name ON user_facts (folded_name);

-- Tokens of users and guests. The subject of a guest is in no other table. Times are in Unix seconds.
CREATE TABLE tokens (
    -- SHA-256 of the token: reading this file signs nobody in.
    digest BLOB PRIMARY KEY,
    subject TEXT NOT NULL,
    username TEXT NOT NULL,
    guest INTEGER NOT NULL,
    scopes_name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) WITHOUT ROWID;

-- Whose tokens: for the proof of a guest's id, the change of a password, and the count per subject.
CREATE INDEX tokens_by_subject ON tokens (subject, expires_at);

-- Which tokens are valid at start, which expired last, and which may go.
CREATE INDEX tokens_by_expiry ON tokens (expires_at);
