-- The steps of a record also end with a record in a state that this version does not know: it may have had steps. Otherwise a later
-- claim of the same key would take them for its own. The states 1, 2, 3 and 6 have none.
DROP TRIGGER IF EXISTS "idem_records_steps_end";
CREATE TRIGGER "idem_records_steps_end" AFTER UPDATE OF state ON "idem_records"
WHEN OLD.state NOT IN (1, 2, 3, 6) AND NEW.state NOT IN (4, 7)
BEGIN
    DELETE FROM "idem_records_steps" WHERE key = NEW.key;
END;

DROP TRIGGER IF EXISTS "idem_records_steps_deleted";
CREATE TRIGGER "idem_records_steps_deleted" AFTER DELETE ON "idem_records"
WHEN OLD.state NOT IN (1, 2, 3, 6)
BEGIN
    DELETE FROM "idem_records_steps" WHERE key = OLD.key;
END;
