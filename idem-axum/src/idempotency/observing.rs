//! Adopting idem on a service with traffic.

use idem_http::settings::Mode;

use super::Idempotency;

impl Idempotency {
    /// Claims, compares and counts requests, and lets every handler run and answer its client.
    ///
    /// For a service with traffic, before idem may answer anybody: the log and the figures say what idem would do. Clients
    /// notice nothing: they get the handler's own answer, without idem's headers, and never a problem of idem's.
    ///
    /// | a request | its handler | is counted as |
    /// |---|---|---|
    /// | the first one under its key | runs under a claim, and its answer is recorded | `executed`, `released` and so on, as without `observing` |
    /// | a duplicate, a mismatch, one in flight | runs without a claim | `replayed`, `mismatch`, `in_flight` and so on |
    /// | without a key, or with a malformed one | runs without a claim | `key_missing`, `key_invalid`, or `unprotected` where no key is required |
    /// | beyond [`with_max_in_flight`](Self::with_max_in_flight) | runs without a claim | `too_busy` |
    /// | in an outage of the backend | runs without a claim | `backend_unavailable`, or `unprotected` under `on_outage = "run"` |
    ///
    /// The figure is `idem_observed_requests_total`, in place of `idem_requests_total`. In spans and log lines the outcome is in
    /// the field `observed`, in place of `outcome`. Each request that idem would answer is a line at level INFO, which says with
    /// what. A duplicate does not wait: under `in_flight = "wait"` it is counted as `in_flight`.
    ///
    /// - Extractors run before the claim, as always, and what they refuse is not counted.
    /// - A `Transaction` is committed or rolled back by the handler's own answer, and never together with a
    ///   record. If the database refuses the commit, the client gets 500 or 503 `rolled-back` all the same: there is nothing else
    ///   to answer.
    /// - [`Steps`](crate::Steps) are not recorded: every body is called.
    /// - The handler of a first request runs on when its client leaves (IDEM-5), so that its outcome is known. All others stop,
    ///   as without idem.
    /// - A panic reaches the layers outside, as without idem. A claim is released then, or under `after_crash = "refuse"` its
    ///   outcome is unknown.
    /// - Where a request has no claim, [`Execution`](crate::Execution) has no record key, and its downstream keys are new each time.
    ///
    /// Clones that were made before are not changed. So one route may be guarded while another one is observed, with the same
    /// backend. The guide `observing` shows which figures to look at, and how to go on.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use idem_axum::{Idempotency, MemoryBackend, idempotent};
    ///
    /// #[idempotent(ttl = "24h", scope = global)]
    /// async fn place_order() {}
    ///
    /// let idempotency = Idempotency::new(MemoryBackend::new());
    /// let app: Router = Router::new()
    ///     .route("/orders", post(place_order))
    ///     .layer(idempotency.clone().observing());
    /// ```
    #[must_use]
    pub fn observing(mut self) -> Self {
        self.settings_mut().mode = Mode::Observing;
        self
    }
}
