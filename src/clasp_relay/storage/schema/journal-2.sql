-- Version 2 of journal.db: what the history rules need to keep to their limits.

-- Whose entry it is; empty in open mode.
ALTER TABLE history ADD COLUMN subject TEXT NOT NULL DEFAULT '';

-- The rules by which the keys were made; when others are in force, the keys are made anew.
CREATE TABLE history_rules (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    fingerprint TEXT NOT NULL
);

INSERT INTO history_rules (id, fingerprint) VALUES (0, '');
