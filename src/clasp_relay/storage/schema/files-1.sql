-- Version 1 of files.db (PRAGMA user_version): the record of the files in files/. Names and types are in neither.

CREATE TABLE files (
    -- 32 hexadecimal digits, the file's name in files/.
    id TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    -- A keyed hash of the client address where a guest sent it; empty for an account's.
    origin BLOB NOT NULL,
    size INTEGER NOT NULL,
    -- What it counts for, in bytes of whole blocks.
    charged INTEGER NOT NULL,
    -- Unix seconds.
    created_at INTEGER NOT NULL,
    -- Unix seconds, to the hour.
    read_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX files_by_subject ON files (subject);

-- Which may go.
CREATE INDEX files_by_read ON files (read_at);
