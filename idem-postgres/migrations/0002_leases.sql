-- Leases that were renewed, one row for each claim that was renewed at least once. A renewal writes here and not into the
-- record's row: a handler's transaction above READ COMMITTED could not complete a row that changed after its snapshot.
--
-- is_over: the claim was taken over, or claimed over after it had expired. It cannot be renewed any more.
CREATE TABLE IF NOT EXISTS public.idem_records_leases (
    id          bytea       NOT NULL,
    token       bytea       NOT NULL,
    lease_until timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    is_over     boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (id, token)
);
