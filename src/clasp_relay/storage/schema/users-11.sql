-- Version 11 of users.db: of whom this relay's history is still to lose what they said. Each relay of a cluster has a
-- history of its own, so this is no part of what all have alike; a deletion may be over elsewhere before it is here.

CREATE TABLE own_erasures (subject TEXT PRIMARY KEY) WITHOUT ROWID;

INSERT INTO own_erasures SELECT subject FROM deletions WHERE erases_messages;

CREATE TRIGGER own_erasures_noted AFTER INSERT ON deletions WHEN NEW.erases_messages
BEGIN
    INSERT OR IGNORE INTO own_erasures VALUES (NEW.subject);
END;
