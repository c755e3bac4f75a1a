-- Version 5 of users.db: incoming webhooks.

CREATE TABLE hooks (
    -- SHA-256 of the id in the URL, which is the secret.
    digest BLOB PRIMARY KEY,
    -- Where a message goes.
    address TEXT NOT NULL,
    -- How it is made.
    template TEXT NOT NULL,
    -- Whose name it shows, where a request has none.
    name TEXT NOT NULL,
    -- Unix seconds.
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
