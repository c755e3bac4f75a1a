-- Version 1 of journal.db (PRAGMA user_version; PRAGMA application_id is 1129072716, «CLJL»).

-- Every recorded change. Nothing but seq is indexed: an index on address and time costs six times the writes.
CREATE TABLE entries (
    -- Rises by one from change to change.
    seq INTEGER PRIMARY KEY,
    -- Unix µs at which the relay accepted it.
    time_us INTEGER NOT NULL,
    -- What it is about: core.records.ChangeKind.
    kind INTEGER NOT NULL,
    address TEXT NOT NULL,
    -- The whole change (core.records.encode_change), and behind it the CRC-32 of that, big-endian.
    body BLOB NOT NULL
);

-- One row a minute: where to begin when a time is asked for.
CREATE TABLE times (
    seq INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL
);

-- What a history rule keeps. The key names the rule and what its «per» captures.
CREATE TABLE history (
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (key, seq)
) WITHOUT ROWID;

CREATE INDEX history_by_seq ON history (seq);

-- Rows up to this one were trimmed, but for those in history.
CREATE TABLE trimmed (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    seq INTEGER NOT NULL
);

INSERT INTO trimmed (id, seq) VALUES (0, 0);
