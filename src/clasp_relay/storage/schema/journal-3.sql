-- Version 3 of journal.db: the keys of history in a table of their own, so that a pattern with wildcards finds its keys
-- without looking at each entry.

CREATE TABLE history_keys (
    -- The seq of the entry with which the key began: a reader that knows the keys up to one asks for those behind it.
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE
);

INSERT INTO history_keys (seq, key) SELECT min(seq), key FROM history GROUP BY key;

CREATE TRIGGER history_key_begins AFTER INSERT ON history
WHEN NOT EXISTS (SELECT 1 FROM history_keys WHERE key = new.key)
BEGIN
    INSERT INTO history_keys (seq, key) VALUES (new.seq, new.key);
END;

CREATE TRIGGER history_key_ends AFTER DELETE ON history
WHEN NOT EXISTS (SELECT 1 FROM history WHERE key = old.key)
BEGIN
    DELETE FROM history_keys WHERE key = old.key;
END;
