-- Version 2 of users.db: names that look alike, sign-ins that are refreshed, and the addresses they come from.

-- Skeletons of the name and of its folded form (UTS #39): a new name with one of them is refused. NULL where they are
-- still to be computed; whoever opens the file fills the gaps.
ALTER TABLE user_facts ADD COLUMN skeleton TEXT;
ALTER TABLE user_facts ADD COLUMN folded_skeleton TEXT;

CREATE INDEX user_facts_by_skeleton ON user_facts (skeleton);
CREATE INDEX user_facts_by_folded_skeleton ON user_facts (folded_skeleton);

-- The expiry that the token was given out with. expires_at is earlier when the token was replaced, or ended to make
-- room: then it lets nobody in any more, and is still taken for a refresh and as proof of a guest's id.
ALTER TABLE tokens ADD COLUMN first_expires_at INTEGER NOT NULL DEFAULT 0;
UPDATE tokens SET first_expires_at = expires_at;

-- The first token of the sign-in that this one was refreshed from, itself if it was not: they are revoked together.
ALTER TABLE tokens ADD COLUMN sign_in BLOB NOT NULL DEFAULT x'';
UPDATE tokens SET sign_in = digest;

-- The token that ends once this one is used; NULL when it has been used, or replaces none.
ALTER TABLE tokens ADD COLUMN replaces BLOB;

-- A keyed hash of the client address that the token was made for. Its key is not in this file.
ALTER TABLE tokens ADD COLUMN made_for BLOB NOT NULL DEFAULT x'';

-- Which tokens may go.
CREATE INDEX tokens_by_first_expiry ON tokens (first_expires_at);

-- From which addresses a user has signed in lately: strangers' failures do not lock the user out there.
CREATE TABLE sign_in_addresses (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- A keyed hash, as above.
    address BLOB NOT NULL,
    -- Unix seconds.
    last_used_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, address)
) WITHOUT ROWID;

CREATE INDEX sign_in_addresses_by_time ON sign_in_addresses (last_used_at);
