-- The tables as the version before the final layout has left them: an order that was completed, and one whose process was
-- killed. Only the times at which they expire were changed.
--
-- The row in state 3, an order whose answer was not stored, was not written by that version's binary. It was made by hand, with
-- the values that its statement for a completion without a payload sets.
CREATE TABLE public.idem_records (
    id bytea NOT NULL,
    key text NOT NULL,
    state smallint NOT NULL,
    token bytea NOT NULL,
    attempt bigint NOT NULL,
    fingerprint bytea NOT NULL,
    lease_ms bigint NOT NULL,
    ttl_ms bigint NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    sweep_at timestamp with time zone NOT NULL,
    waited boolean DEFAULT false NOT NULL,
    payload bytea
);
CREATE TABLE public.idem_records_leases (
    id bytea NOT NULL,
    token bytea NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    is_over boolean DEFAULT false NOT NULL
);
CREATE TABLE public.idem_records_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
INSERT INTO public.idem_records (id, key, state, token, attempt, fingerprint, lease_ms, ttl_ms, lease_until, expires_at, sweep_at, waited, payload) VALUES ('\xf284f1eb7554fe4c1dfc5b02fcb732b94b927f1119bc2e8326136c649074f8e7', 'POST%20/orders:acme:completed', 2, '\xf039628933a7935b2b8d5abb2e2b07a2', 1, '\x010a8b1400efe0b92d74a394b27a92064491afd6a4e477583586d2d08c56c7674e', 30000, 86400000, '2026-11-27 22:09:37.964349+00', now() + interval '1 day', now() + interval '1 day', false, '\x010100c900010c636f6e74656e742d74797065000000106170706c69636174696f6e2f6a736f6e7b22657865637574696f6e223a312c226f72646572223a22636f6d706c65746564222c2274656e616e74223a2261636d65227d');
INSERT INTO public.idem_records (id, key, state, token, attempt, fingerprint, lease_ms, ttl_ms, lease_until, expires_at, sweep_at, waited, payload) VALUES ('\x714e54c09f9ec6a8acf674461a42d79dd7812db0d57f146bce3b025061b98c13', 'POST%20/orders/short-lease:acme:claimed', 1, '\xb192ab801dd98333bd90ebf819faead2', 1, '\x0119ef1f100874ae3e9467f4d755558b8f5cb3a9b87e8c096144918f0add1f0b21', 1000, 86400000, '2026-11-27 22:09:08.976762+00', now() + interval '1 day', now() + interval '1 day', false, NULL);
INSERT INTO public.idem_records (id, key, state, token, attempt, fingerprint, lease_ms, ttl_ms, lease_until, expires_at, sweep_at, waited, payload) VALUES ('\x081f0f532aa22156d3ebbabcb1263f5db28bfac4945db8453dc0b1191ad2f075', 'POST%20/orders:acme:not-stored', 3, '\x5d0c4be1a7f34c0f9b6b3e1a2d8f7c61', 1, '\x0185bf91a36d013a40ef4c9f7bfdca7384d92c25b78716424b5a9161405b596891', 30000, 86400000, '2026-11-27 22:09:38.120417+00', now() + interval '1 day', now() + interval '1 day', false, NULL);
INSERT INTO public.idem_records_leases (id, token, lease_until, expires_at, is_over) VALUES ('\x714e54c09f9ec6a8acf674461a42d79dd7812db0d57f146bce3b025061b98c13', '\xb192ab801dd98333bd90ebf819faead2', '2026-11-27 22:09:10.336561+00', now() + interval '1 day', false);
INSERT INTO public.idem_records_migrations (version, description, installed_on, success, checksum, execution_time) VALUES (1, 'records', '2026-11-27 22:09:07.912695+00', true, '\x2ac7b62e83d575a8ba0b8b7d1c97a5f41dbbe19c480c789b7293418eacf7d41f48f141bc4ac7454982d1d7dcaf1aba3c', -1);
INSERT INTO public.idem_records_migrations (version, description, installed_on, success, checksum, execution_time) VALUES (2, 'leases', '2026-11-27 22:09:07.912695+00', true, '\x6a9fdc2113bc4504eb6989a1ee6c32c2844bb18d3af86106b501eea4c7f9990b92332342f69fedff7201a57ddbc9a092', -1);
ALTER TABLE ONLY public.idem_records_leases
    ADD CONSTRAINT idem_records_leases_pkey PRIMARY KEY (id, token);
ALTER TABLE ONLY public.idem_records_migrations
    ADD CONSTRAINT idem_records_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.idem_records
    ADD CONSTRAINT idem_records_pkey PRIMARY KEY (id);
CREATE INDEX idem_records_expiry ON public.idem_records USING btree (sweep_at);
