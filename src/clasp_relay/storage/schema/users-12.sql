-- Version 12 of users.db: files that users of a cluster send to each other. A relay that is alone has them in files.db.

CREATE TABLE sent_files (
    -- 32 hexadecimal digits, the name of the object with the bytes.
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
    read_at INTEGER NOT NULL,
    -- Whether all of its bytes are in the object store; before that it counts, and nobody reads it.
    is_stored INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX sent_files_by_subject ON sent_files (subject);

-- Which may go.
CREATE INDEX sent_files_by_read ON sent_files (read_at);

-- What they take, by owner and in all: follows from the table above, so it is no part of what all relays have alike.
CREATE TABLE sent_files_use (
    subject TEXT NOT NULL,
    origin BLOB NOT NULL,
    files INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    PRIMARY KEY (subject, origin)
) WITHOUT ROWID;

CREATE INDEX sent_files_use_by_origin ON sent_files_use (origin, charged);

CREATE TABLE sent_files_totals (
    is_guests INTEGER PRIMARY KEY,
    files INTEGER NOT NULL,
    charged INTEGER NOT NULL
);

INSERT INTO sent_files_totals VALUES (0, 0, 0), (1, 0, 0);

CREATE TRIGGER sent_files_counted AFTER INSERT ON sent_files
BEGIN
    INSERT OR IGNORE INTO sent_files_use VALUES (NEW.subject, NEW.origin, 0, 0);
    UPDATE sent_files_use SET files = files + 1, charged = charged + NEW.charged
        WHERE subject = NEW.subject AND origin = NEW.origin;
    UPDATE sent_files_totals SET files = files + 1, charged = charged + NEW.charged
        WHERE is_guests = (NEW.origin <> x'');
END;

CREATE TRIGGER sent_files_uncounted AFTER DELETE ON sent_files
BEGIN
    UPDATE sent_files_use SET files = files - 1, charged = charged - OLD.charged
        WHERE subject = OLD.subject AND origin = OLD.origin;
    DELETE FROM sent_files_use WHERE subject = OLD.subject AND origin = OLD.origin AND files = 0;
    UPDATE sent_files_totals SET files = files - 1, charged = charged - OLD.charged
        WHERE is_guests = (OLD.origin <> x'');
END;

-- Nothing but the origin of a row that counts ever changes.
CREATE TRIGGER sent_files_moved AFTER UPDATE OF origin ON sent_files WHEN OLD.origin <> NEW.origin
BEGIN
    UPDATE sent_files_use SET files = files - 1, charged = charged - OLD.charged
        WHERE subject = OLD.subject AND origin = OLD.origin;
    DELETE FROM sent_files_use WHERE subject = OLD.subject AND origin = OLD.origin AND files = 0;
    UPDATE sent_files_totals SET files = files - 1, charged = charged - OLD.charged
        WHERE is_guests = (OLD.origin <> x'');
    INSERT OR IGNORE INTO sent_files_use VALUES (NEW.subject, NEW.origin, 0, 0);
    UPDATE sent_files_use SET files = files + 1, charged = charged + NEW.charged
        WHERE subject = NEW.subject AND origin = NEW.origin;
    UPDATE sent_files_totals SET files = files + 1, charged = charged + NEW.charged
        WHERE is_guests = (NEW.origin <> x'');
END;

-- A guest's files are the user's who the guest becomes.
CREATE TRIGGER sent_files_of_users AFTER INSERT ON users
BEGIN
    UPDATE sent_files SET origin = x'' WHERE subject = NEW.id AND origin <> x'';
END;
