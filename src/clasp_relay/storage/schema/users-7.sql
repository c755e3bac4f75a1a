-- Version 7 of users.db: administrators, what they decided about people, and the audit log. Times are in Unix seconds.

-- Users who may sign in to the console.
CREATE TABLE administrators (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    granted_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Users and guests who may not sign in.
CREATE TABLE disabled_subjects (
    subject TEXT PRIMARY KEY,
    disabled_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Ids of users and guests that were deleted: nobody else gets them.
CREATE TABLE retired_ids (
    id TEXT PRIMARY KEY,
    retired_at INTEGER NOT NULL
) WITHOUT ROWID;

-- One-time links to choose a new password; a user has one at most.
CREATE TABLE password_resets (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the secret in the link.
    digest BLOB UNIQUE NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;

-- What administrators chose in the place of the relay's options.
CREATE TABLE choices (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Who did what to whom. Rows are added, and the oldest go when they are too old; nothing else happens to them.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    action TEXT NOT NULL,
    -- ok, or the name of a refusal.
    outcome TEXT NOT NULL,
    -- The user id of who did it; empty where nobody was recognised.
    actor TEXT NOT NULL,
    -- What they were called then.
    actor_name TEXT NOT NULL,
    -- Whom or what it was done to; may be empty.
    target TEXT NOT NULL,
    -- A keyed hash of the client address, as in the state; empty for the command line.
    address TEXT NOT NULL,
    -- A JSON object.
    detail TEXT NOT NULL
);

-- Rows from this one on may not be deleted.
CREATE TABLE audit_bounds (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    first_seq INTEGER NOT NULL
);
INSERT INTO audit_bounds VALUES (1, 1);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
WHEN OLD.seq >= (SELECT first_seq FROM audit_bounds)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- INSERT OR REPLACE deletes without the trigger above.
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_bounds_rise BEFORE UPDATE ON audit_bounds
WHEN NEW.first_seq < OLD.first_seq
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_bounds_stay BEFORE DELETE ON audit_bounds
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_bounds_are_one BEFORE INSERT ON audit_bounds
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
