-- Idempotency records, one row each.
--
-- state: 1 claimed, 2 completed with a payload, 3 completed without one, 6 completed with an unknown outcome. A later version that
-- writes rows in another form takes new numbers, so that an older one does not misread them.
--
-- lapses_ns: when the lease lapses, in nanoseconds of the boot clock. It counts only while the machine's boot id is `boot`: after
-- a reboot every lease has lapsed.
--
-- expires_ms: when the record expires, in milliseconds since 1970. A claim whose lease holds does not expire.
CREATE TABLE IF NOT EXISTS "idem_records" (
    key         TEXT    NOT NULL PRIMARY KEY,
    state       INTEGER NOT NULL,
    token       BLOB    NOT NULL,
    attempt     INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL,
    lease_ms    INTEGER NOT NULL,
    ttl_ms      INTEGER NOT NULL,
    began_ms    INTEGER NOT NULL,
    owner       TEXT    NOT NULL,
    boot        TEXT    NOT NULL,
    lapses_ns   INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL,
    payload     BLOB
) STRICT;

-- For the sweep alone; every other statement goes by `key`.
CREATE INDEX IF NOT EXISTS "idem_records_expiry" ON "idem_records" (expires_ms);
