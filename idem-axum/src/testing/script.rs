//! What a scripted backend is told to do.
//!
//! Owns the faults and calls by name, and which fault which call has next. What a fault does to a record is
//! [`scripted`](super::scripted)'s.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use idem_core::BackendErrorKind;
use tokio::sync::watch;

/// An operation of [`Backend`](crate::Backend).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendCall {
    /// Each request's first one: claims its record, or finds out what is there.
    Claim,
    /// Puts a claim in the place of one whose lease has lapsed.
    TakeOver,
    /// Starts the lease of a running handler anew, at a third of it.
    Renew,
    /// Records the outcome.
    Complete,
    /// Gives the record up, where the outcome is not kept.
    Release,
    /// Records a durable step.
    RecordStep,
    /// Reads the durable steps of earlier attempts.
    ReadSteps,
    /// Keeps the steps of an attempt whose answer is not kept, in place of a release.
    Park,
    /// Reads a record, where a request may not claim it because too many handlers run.
    Read,
    /// Listens for the end of a claim, where duplicates wait.
    Changed,
    /// Asks whether claims would be accepted; it is about no record, so that only errors and stalls mean something to it.
    Check,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails with an error of this kind and has no effect.
    Error(BackendErrorKind),
    /// It takes effect, and its caller gets an error of the kind `Timeout`.
    LostAnswer,
    /// Before it, the claim in place is gone without a trace, as after a restart without data. Breaks clause 4 of the
    /// contract.
    ///
    /// Whoever held the claim is superseded, and the next request under the key runs.
    LostClaim,
    /// Before it, another attempt has taken the claim over, though its lease has not lapsed, and holds it. Breaks clause 5
    /// of the contract.
    ///
    /// Whoever held the claim is superseded, and the next request under the key is a duplicate of one in flight, until
    /// the lease of that attempt has lapsed.
    Superseded,
}

/// What is to come, and what was.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<HashMap<BackendCall, Lane>>);

/// What there is to know of one kind of call.
#[derive(Debug, Default)]
struct Lane {
    calls: usize,
    next: VecDeque<Fault>,
    every: Option<Fault>,
    gate: Option<Arc<Gate>>,
}

/// Where calls wait.
#[derive(Debug, Default)]
struct Gate {
    arrived: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Script {
    pub(super) fn on_next(&self, call: BackendCall, fault: Fault) {
        self.lanes().entry(call).or_default().next.push_back(fault);
    }

    pub(super) fn on_every(&self, call: BackendCall, fault: Fault) {
        self.lanes().entry(call).or_default().every = Some(fault);
    }

    pub(super) fn recover(&self) {
        for lane in self.lanes().values_mut() {
            lane.next.clear();
            lane.every = None;
        }
    }

    pub(super) fn calls(&self, call: BackendCall) -> usize {
        self.lanes().get(&call).map_or(0, |lane| lane.calls)
    }

    pub(super) fn stall(&self, call: BackendCall) -> Stall {
        let gate = Arc::<Gate>::default();
        self.lanes().entry(call).or_default().gate = Some(gate.clone());
        Stall(gate)
    }

    /// Counts a call, lets it wait where it has to, and says what happens to it.
    pub(super) async fn next_fault(&self, call: BackendCall) -> Option<Fault> {
        let gate = {
            let mut lanes = self.lanes();
            let lane = lanes.entry(call).or_default();
            lane.calls += 1;
            lane.gate.clone()
        };
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let mut lanes = self.lanes();
        let lane = lanes.entry(call).or_default();
        lane.next.pop_front().or(lane.every)
    }

    /// No operation leaves it half changed, so a poisoned one is whole.
    fn lanes(&self) -> MutexGuard<'_, HashMap<BackendCall, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    async fn pass(&self) {
        let mut open = self.open.subscribe();
        self.arrived.send_modify(|arrived| *arrived += 1);
        // The sender is in `self`, so it never fails.
        let _ = open.wait_for(|open| *open).await;
    }
}

/// Calls that wait; dropped, it lets them go on.
#[derive(Debug)]
#[must_use = "the calls go on when this is dropped"]
pub struct Stall(Arc<Gate>);

impl Stall {
    /// Resolves when `calls` of them wait, those included that were given up meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops only the waiting.
    pub async fn reached(&self, calls: usize) {
        let mut arrived = self.0.arrived.subscribe();
        // The sender is in `self`, so it never fails.
        let _ = arrived.wait_for(|arrived| *arrived >= calls).await;
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.0.open.send_replace(true);
    }
}
