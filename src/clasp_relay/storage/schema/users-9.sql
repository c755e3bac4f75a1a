-- Version 9 of users.db: people whose account was deleted, and of whom params, files or messages may be left.

CREATE TABLE deletions (
    subject TEXT PRIMARY KEY,
    -- Whether history keeps nothing of what they said.
    erases_messages INTEGER NOT NULL,
    -- Unix seconds.
    asked_at INTEGER NOT NULL
) WITHOUT ROWID;
