-- Durable steps of records, one row each. They end with their record.
--
-- state of the record: 4 claimed, with steps; 7 parked: its attempt has ended without an outcome, and its steps are kept. Processes of
-- an earlier version do not read such a record.
CREATE TABLE IF NOT EXISTS public.idem_records_steps (
    id   bytea NOT NULL REFERENCES public.idem_records (id) ON DELETE CASCADE,
    name text  NOT NULL,
    step bytea NOT NULL,
    PRIMARY KEY (id, name)
);
