-- Version 10 of users.db: what a relay of a cluster keeps beside the accounts; empty for a relay that is alone.

-- How much of the cluster's account records this file has; one row, from the first start with --cluster on.
CREATE TABLE log_position (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- The number of the last record whose rows are here; 0 for none.
    number INTEGER NOT NULL,
    -- That record's digest.
    digest BLOB NOT NULL,
    -- The digest of the first record: which log it is. Empty before that.
    origin BLOB NOT NULL,
    -- Whether rows of the log are being written: they are not noted in changed_rows.
    is_following INTEGER NOT NULL,
    -- Whether the file had accounts before its relay was in a cluster.
    has_base INTEGER NOT NULL,
    -- Names this file in what it tells others of its changed_rows.
    file BLOB NOT NULL
);

-- Up to which number the calls of each relay are done that were asked of the decider.
CREATE TABLE log_calls (
    link TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    -- The record that says so: the oldest rows go first.
    record INTEGER NOT NULL
) WITHOUT ROWID;

-- Rows that were not written by the log: a command has changed them, and the relay has to tell the others. Triggers
-- that a relay of a cluster makes fill it. The columns have no type, so that each value keeps its own.
CREATE TABLE changed_rows (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    -- The row's key; of an entry of the audit log all but its number.
    k0, k1, k2, k3, k4, k5, k6, k7
);

CREATE INDEX changed_rows_by_key ON changed_rows (name, k0, k1);
