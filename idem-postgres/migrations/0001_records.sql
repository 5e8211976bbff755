-- Idempotency records, one row each. `id` is the SHA-256 of `key`.
--
-- state: 1 claimed, 2 completed with a payload, 3 completed without one. A later version that writes rows in another
-- form takes new numbers, so that an older one does not misread them.
--
-- sweep_at: not before `expires_at`. A completion brings that forward and, unless its lease had lapsed, leaves this alone:
-- a row whose indexed columns stay as they are is replaced within its page, where that has room, and no index is written.
CREATE TABLE IF NOT EXISTS public.idem_records (
    id          bytea       PRIMARY KEY,
    key         text        NOT NULL,
    state       smallint    NOT NULL,
    token       bytea       NOT NULL,
    attempt     bigint      NOT NULL,
    fingerprint bytea       NOT NULL,
    lease_ms    bigint      NOT NULL,
    ttl_ms      bigint      NOT NULL,
    lease_until timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    sweep_at    timestamptz NOT NULL,
    waited      boolean     NOT NULL DEFAULT false,
    payload     bytea
);

-- For the sweep alone; every other statement goes by `id`.
CREATE INDEX IF NOT EXISTS idem_records_expiry ON public.idem_records (sweep_at);
