-- Durable steps of records, one row each.
--
-- state of the record: 4 claimed, with steps; 7 parked: its attempt has ended without an outcome, and its steps are kept. Processes of
-- an earlier version do not read such a record.
CREATE TABLE IF NOT EXISTS "idem_records_steps" (
    key  TEXT NOT NULL,
    name TEXT NOT NULL,
    step BLOB NOT NULL,
    PRIMARY KEY (key, name)
) STRICT, WITHOUT ROWID;

-- The steps of a record end with it, whoever writes the record and whatever its `PRAGMA foreign_keys` says.
CREATE TRIGGER IF NOT EXISTS "idem_records_steps_end" AFTER UPDATE OF state ON "idem_records"
WHEN OLD.state IN (4, 7) AND NEW.state NOT IN (4, 7)
BEGIN
    DELETE FROM "idem_records_steps" WHERE key = NEW.key;
END;

CREATE TRIGGER IF NOT EXISTS "idem_records_steps_deleted" AFTER DELETE ON "idem_records"
WHEN OLD.state IN (4, 7)
BEGIN
    DELETE FROM "idem_records_steps" WHERE key = OLD.key;
END;
