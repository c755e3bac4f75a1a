-- Version 4 of users.db: what a user is told about the own sign-ins.

-- The name of the device or program that signed in, for people; empty where it gave none.
ALTER TABLE tokens ADD COLUMN device TEXT NOT NULL DEFAULT '';

-- When the sign-in began that this token was refreshed from, in Unix seconds.
ALTER TABLE tokens ADD COLUMN signed_in_at INTEGER NOT NULL DEFAULT 0;
UPDATE tokens SET signed_in_at =
    (SELECT MIN(first.created_at) FROM tokens AS first
     WHERE first.subject = tokens.subject AND first.sign_in = tokens.sign_in);
