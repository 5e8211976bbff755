//! The right to run a request.
//!
//! Owns what the integration may set between the claim and the run. Does not own the run: [`run`](super::run).

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Span;

use super::attended::Attended;
use super::pending::Pending;
use super::run::{Held, Work};
use super::{HandlerResult, RunAnswer, RunOutcome};
use crate::observe::InFlight;
use crate::steps::{Attempt, Steps};
use crate::{AfterCrash, Claim};

/// The right to run a request once. If it is dropped before [`run`](Self::run), its claim is released in the background.
#[derive(Debug)]
#[must_use = "nobody else can run the request while it is held"]
pub struct Run {
    pub(super) pending: Pending,
    pub(super) after_crash: AfterCrash,
    /// How long the claim is renewed.
    pub(super) renewal_limit: Option<Duration>,
    /// When the claiming call was made. The lease starts later than that.
    pub(super) asked: Instant,
    /// The steps of the handler, if it has asked for them.
    pub(super) steps: Option<Steps>,
    pub(super) on_renewal: Option<OnRenewal>,
}

/// Called after each renewal of a lease.
#[derive(Clone)]
pub(super) struct OnRenewal(Arc<dyn Fn() + Send + Sync>);

impl OnRenewal {
    /// The panic hook has reported a panic of it, which must not end the renewals.
    pub(super) fn call(&self) {
        let _panic = catch_unwind(AssertUnwindSafe(|| (self.0)()));
    }
}

impl fmt::Debug for OnRenewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRenewal")
    }
}

impl Run {
    /// The claim under which the handler runs.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        self.pending.claim()
    }

    /// The durable steps of the handler, which it has to be given. If the handler does not complete the record, the steps are kept
    /// for the next attempt. Nothing is sent until the first step.
    ///
    /// If the backend keeps no steps ([`Engine::keeps_steps`](super::Engine::keeps_steps)), every step is
    /// [`StepErrorKind::NotConfigured`](crate::StepErrorKind::NotConfigured), and its body is not called.
    pub fn steps(&mut self) -> Steps {
        let steps = self.steps.get_or_insert_with(|| {
            let engine = self.pending.engine().clone();
            let limits = engine.0.step_limits;
            let (key, claim) = (self.pending.key().clone(), self.pending.claim().clone());
            Steps::of(Attempt::new(engine, key, claim, limits))
        });
        steps.clone()
    }

    /// Calls `renewed` after each renewal of the lease, about every third of it, while the handler runs. It must not block.
    ///
    /// A consumer extends the time in which its broker does not deliver the message again.
    pub fn on_renewal(&mut self, renewed: impl Fn() + Send + Sync + 'static) {
        self.on_renewal = Some(OnRenewal(Arc::new(renewed)));
    }

    /// Runs `handler` to its end and records its outcome, within the current tracing span.
    ///
    /// `on_outcome` is called once with the outcome of the run, whether or not the client is still connected.
    ///
    /// The handler is polled in the current task. When the future is dropped, the handler moves to a task of its own; from
    /// then on it does not see task-local values that were set around the future.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before its first poll releases the claim in the background. Dropping it later changes nothing:
    /// the handler runs to its end and its outcome is recorded.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` stores its arguments twice")]
    pub fn run<A, F, E>(self, handler: F, on_outcome: E) -> impl Future<Output = RunAnswer<A>> + Send
    where
        A: Send + 'static,
        F: Future<Output = HandlerResult<A>> + Send + 'static,
        E: FnOnce(RunOutcome) + Send + 'static,
    {
        async move { self.start(handler, on_outcome).await }
    }

    fn start<A, F, E>(mut self, handler: F, on_outcome: E) -> Attended<RunAnswer<A>>
    where
        A: Send + 'static,
        F: Future<Output = HandlerResult<A>> + Send + 'static,
        E: FnOnce(RunOutcome) + Send + 'static,
    {
        let runtime = Handle::current();
        let mut permit = self.pending.take_permit();
        if let Some(permit) = &mut permit {
            permit.start();
        }
        let work = Arc::new(Work {
            engine: self.pending.engine().clone(),
            key: self.pending.key().clone(),
            claim: self.pending.claim().clone(),
            after_crash: self.after_crash,
            renewal_limit: self.renewal_limit,
            steps: self.steps.take(),
            on_renewal: self.on_renewal.take(),
            span: Span::current(),
            is_recording: false.into(),
            held: Mutex::new(Held {
                tracked: Some(self.pending.engine().0.running.token()),
                permit,
            }),
            _counted: InFlight::start(),
        });
        let renewals = work.engine.0.renewer.renew(&work, &runtime, self.asked);
        self.pending.start();
        Attended::new(work.answer(renewals, handler, on_outcome), runtime)
    }
}
