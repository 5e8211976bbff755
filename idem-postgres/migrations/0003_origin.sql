-- Where a claim comes from: when its first attempt began, in milliseconds since 1970 by the clock of the process that ran it, and
-- the process that holds it. Both are kept when the claim is completed.
--
-- The defaults are for processes of an earlier version, which write rows without these columns while the new version is rolled
-- out, and for rows that are older than this migration.
ALTER TABLE public.idem_records ADD COLUMN IF NOT EXISTS began_ms bigint NOT NULL
    DEFAULT (extract(epoch FROM now()) * 1000)::bigint;
ALTER TABLE public.idem_records ADD COLUMN IF NOT EXISTS owner text NOT NULL DEFAULT '';
