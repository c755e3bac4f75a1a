-- Version 8 of users.db: what ends a push subscription, and who sends.

-- The digest of the first token of the sign-in that it was made in: it ends when that is signed out.
ALTER TABLE push_subscriptions ADD COLUMN sign_in BLOB NOT NULL DEFAULT x'';

-- The key by which push services know this relay (RFC 8292): without it every browser would have to subscribe anew.
CREATE TABLE push_key (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    -- P-256, PKCS #8 in PEM.
    private_key BLOB NOT NULL
);
