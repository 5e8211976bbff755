//! The engine's metrics, through the `metrics` facade.
//!
//! Owns the names, units and labels of the metrics. Without the feature `metrics`, every function here does nothing. Labels
//! have few values: a key or a scope is never a label. Does not own the results of requests: the integration counts those.

/// A backend call, as the value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Claim,
    TakeOver,
    Renew,
    Complete,
    Commit,
    Release,
    Read,
    Listen,
    Check,
    RecordStep,
    ReadSteps,
    Park,
}

#[cfg(feature = "metrics")]
mod figures {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
    use tokio::time::Instant;

    use super::Call;
    use crate::{BackendError, BackendErrorKind};

    impl Call {
        const fn name(self) -> &'static str {
            match self {
                Self::Claim => "claim",
                Self::TakeOver => "take_over",
                Self::Renew => "renew",
                Self::Complete => "complete",
                Self::Commit => "commit",
                Self::Release => "release",
                Self::Read => "read",
                Self::Listen => "listen",
                Self::Check => "check",
                Self::RecordStep => "record_step",
                Self::ReadSteps => "read_steps",
                Self::Park => "park",
            }
        }
    }

    fn kind(error: &BackendError) -> &'static str {
        match error.kind() {
            BackendErrorKind::Unavailable => "unavailable",
            BackendErrorKind::Timeout => "timeout",
            BackendErrorKind::Refused => "refused",
            BackendErrorKind::Unreadable => "unreadable",
            BackendErrorKind::Config => "config",
        }
    }

    pub(crate) fn describe() {
        describe_histogram!(
            "idem_backend_duration_seconds",
            Unit::Seconds,
            "How long a call to the backend took, by call."
        );
        describe_counter!(
            "idem_backend_errors_total",
            Unit::Count,
            "Calls to the backend that failed, by call and by kind of error."
        );
        describe_gauge!(
            "idem_handlers_in_flight",
            Unit::Count,
            "Handlers that run, or whose outcome is being recorded, their clients gone or not."
        );
        describe_gauge!(
            "idem_longest_run_seconds",
            Unit::Seconds,
            "How long the longest of the running handlers has run. 0 while none has run for a third of its lease."
        );
        describe_gauge!(
            "idem_waiters",
            Unit::Count,
            "Duplicates that wait for the first one's answer."
        );
        describe_histogram!(
            "idem_wait_duration_seconds",
            Unit::Seconds,
            "How long a duplicate waited, whatever came of it."
        );
        describe_counter!(
            "idem_lease_renewals_total",
            Unit::Count,
            "Renewals of leases, by what came of them: renewed, lost, failed."
        );
        describe_counter!(
            "idem_takeovers_total",
            Unit::Count,
            "Claims taken over from an owner that died or stalled."
        );
        describe_gauge!(
            "idem_releases_pending",
            Unit::Count,
            "Claims of clients that hung up, or of calls that failed, which are being released."
        );
        describe_counter!(
            "idem_releases_left_out_total",
            Unit::Count,
            "Claims that were left to their lease, because too many others were being released."
        );
        describe_histogram!(
            "idem_record_bytes",
            Unit::Bytes,
            "The size of an answer that was kept, headers and body."
        );
        begin();
    }

    /// Registers the metrics whose labels are known, with the value zero.
    ///
    /// A counter that first appears with the value 1 shows no increase to a query such as `increase(…)`. The first takeover
    /// would then be missed.
    fn begin() {
        gauge!("idem_handlers_in_flight").increment(0.0);
        gauge!("idem_longest_run_seconds").increment(0.0);
        gauge!("idem_waiters").increment(0.0);
        gauge!("idem_releases_pending").increment(0.0);
        counter!("idem_takeovers_total").increment(0);
        counter!("idem_releases_left_out_total").increment(0);
        for result in ["renewed", "lost", "failed"] {
            counter!("idem_lease_renewals_total", "result" => result).increment(0);
        }
    }

    /// The start of a backend call; [`end`](Self::end) records its duration.
    pub(crate) struct Timing {
        call: Call,
        started: Instant,
    }

    impl Timing {
        pub(crate) fn start(call: Call) -> Self {
            let started = Instant::now();
            Self { call, started }
        }

        pub(crate) fn end<T>(self, answered: &Result<T, BackendError>) {
            let call = self.call.name();
            histogram!("idem_backend_duration_seconds", "call" => call).record(self.started.elapsed());
            if let Err(error) = answered {
                counter!("idem_backend_errors_total", "call" => call, "kind" => kind(error)).increment(1);
            }
        }
    }

    /// Counts a handler as in flight until dropped.
    #[derive(Debug)]
    pub(crate) struct InFlight(());

    impl InFlight {
        pub(crate) fn start() -> Self {
            gauge!("idem_handlers_in_flight").increment(1.0);
            Self(())
        }
    }

    impl Drop for InFlight {
        fn drop(&mut self) {
            gauge!("idem_handlers_in_flight").decrement(1.0);
        }
    }

    /// The runs of all engines that are long enough for a renewal, by their beginnings and a number.
    static LONG_RUNS: Mutex<(BTreeSet<(Instant, u64)>, u64)> = Mutex::new((BTreeSet::new(), 0));

    fn long_runs() -> MutexGuard<'static, (BTreeSet<(Instant, u64)>, u64)> {
        LONG_RUNS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_longest(runs: &BTreeSet<(Instant, u64)>) {
        let longest = runs.first().map(|(since, _)| since.elapsed()).unwrap_or_default();
        gauge!("idem_longest_run_seconds").set(longest);
    }

    /// A run that is long enough for a renewal, until dropped.
    pub(crate) struct LongRun((Instant, u64));

    impl LongRun {
        pub(crate) fn start(since: Instant) -> Self {
            let (runs, next) = &mut *long_runs();
            let run = (since, *next);
            *next += 1;
            runs.insert(run);
            Self(run)
        }

        /// Sets the metric to the longest of all runs.
        #[expect(clippy::unused_self, reason = "only a run can be the longest one")]
        pub(crate) fn note(&self) {
            set_longest(&long_runs().0);
        }
    }

    impl Drop for LongRun {
        fn drop(&mut self) {
            let runs = &mut long_runs().0;
            runs.remove(&self.0);
            set_longest(runs);
        }
    }

    /// Counts a duplicate as waiting until dropped.
    #[derive(Debug)]
    pub(crate) struct Waiting(Instant);

    impl Waiting {
        pub(crate) fn start() -> Self {
            gauge!("idem_waiters").increment(1.0);
            Self(Instant::now())
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            gauge!("idem_waiters").decrement(1.0);
            histogram!("idem_wait_duration_seconds").record(self.0.elapsed());
        }
    }

    /// Counts a claim as being released until dropped.
    #[derive(Debug)]
    pub(crate) struct Releasing(());

    impl Releasing {
        pub(crate) fn start() -> Self {
            gauge!("idem_releases_pending").increment(1.0);
            Self(())
        }
    }

    impl Drop for Releasing {
        fn drop(&mut self) {
            gauge!("idem_releases_pending").decrement(1.0);
        }
    }

    pub(crate) fn release_left_out() {
        counter!("idem_releases_left_out_total").increment(1);
    }

    pub(crate) fn renewal(result: &'static str) {
        counter!("idem_lease_renewals_total", "result" => result).increment(1);
    }

    pub(crate) fn takeover() {
        counter!("idem_takeovers_total").increment(1);
    }

    pub(crate) fn record(bytes: usize) {
        // A stored answer is too small for `f64` to lose a digit.
        #[allow(clippy::cast_precision_loss, reason = "64 MiB at most")]
        histogram!("idem_record_bytes").record(bytes as f64);
    }
}

#[cfg(not(feature = "metrics"))]
mod figures {
    use super::Call;
    use crate::BackendError;

    pub(crate) fn describe() {}

    pub(crate) struct Timing;

    impl Timing {
        pub(crate) fn start(_: Call) -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "the twin of what counts")]
        pub(crate) fn end<T>(self, _: &Result<T, BackendError>) {}
    }

    #[derive(Debug)]
    pub(crate) struct InFlight;

    impl InFlight {
        pub(crate) fn start() -> Self {
            Self
        }
    }

    pub(crate) struct LongRun;

    impl LongRun {
        pub(crate) fn start(_: tokio::time::Instant) -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "the twin of what counts")]
        pub(crate) fn note(&self) {}
    }

    #[derive(Debug)]
    pub(crate) struct Waiting;

    impl Waiting {
        pub(crate) fn start() -> Self {
            Self
        }
    }

    #[derive(Debug)]
    pub(crate) struct Releasing;

    impl Releasing {
        pub(crate) fn start() -> Self {
            Self
        }
    }

    pub(crate) fn release_left_out() {}

    pub(crate) fn renewal(_: &'static str) {}

    pub(crate) fn takeover() {}

    pub(crate) fn record(_: usize) {}
}

pub(crate) use figures::{
    InFlight, LongRun, Releasing, Timing, Waiting, describe, record, release_left_out, renewal, takeover,
};
