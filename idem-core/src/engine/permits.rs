//! How many handlers run at once.
//!
//! Owns the permits. A request takes one before it makes a call that may claim its key, and gives it back if it may not run. The
//! permit of a request that runs goes with its handler, whether or not the client is still connected, and ends with it.
//!
//! A request that finds no permit reads its record, which needs none, so that replays go on. If the record does not answer it,
//! the request is refused at once while as many handlers run as are allowed. If fewer run, the other permits belong to calls on
//! their way, of which most find a duplicate; the request then waits for one of them. Does not own the look at the record itself:
//! [`Pending`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::Either;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::look::{Found, Look, Looked};
use super::pending::Pending;
use crate::observe::Call;
use crate::{BackendError, ClaimPolicy, Record};

/// The permits of an engine. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Permits {
    free: Arc<Semaphore>,
    most: usize,
    running: Arc<AtomicUsize>,
}

/// The permit of one request. It is passed on in a box, so that requests of an engine without a limit do not make room for it.
#[derive(Debug)]
pub(super) struct Permit {
    running: Arc<AtomicUsize>,
    is_running: bool,
    _held: OwnedSemaphorePermit,
}

impl Permits {
    /// Permits for `most` handlers.
    pub(super) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(most)),
            most,
            running: Arc::default(),
        }
    }

    /// How many there are.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// A permit, if one is free.
    pub(super) fn try_take(&self) -> Option<Box<Permit>> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Box::new(self.taken(permit)))
    }

    /// A permit, once one is free; `None` if all handlers that are allowed are running, or none becomes free within `patience`.
    pub(super) async fn take_unless_busy(&self, patience: Duration) -> Option<Box<Permit>> {
        if self.running.load(Ordering::Relaxed) >= self.most {
            return None;
        }
        let freed = timeout(patience, self.free.clone().acquire_owned()).await;
        Some(Box::new(self.taken(freed.ok()?.ok()?)))
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Permit {
        Permit {
            running: self.running.clone(),
            is_running: false,
            _held: permit,
        }
    }
}

impl Permit {
    /// The handler starts.
    pub(super) fn start(&mut self) {
        self.is_running = true;
        self.running.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_running {
            self.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Pending {
    /// Claims the key, takes a lapsed claim over, or reports the existing record, with a permit if the engine has a limit. The
    /// record is copied to `shown`, if given.
    pub(super) fn acquire<'a>(
        &'a mut self,
        policy: &'a ClaimPolicy,
        shown: Option<&'a mut Option<Record>>,
    ) -> impl Future<Output = Looked> + Send + 'a {
        match &self.engine.0.permits {
            None => Either::Left(self.claim_or_report(policy, shown)),
            Some(permits) => {
                let permits = permits.clone();
                Either::Right(Box::pin(self.acquire_with_permit(permits, policy, shown)))
            }
        }
    }

    /// Looks with a permit, or without one only at what is there.
    async fn acquire_with_permit(
        &mut self,
        permits: Permits,
        policy: &ClaimPolicy,
        mut shown: Option<&mut Option<Record>>,
    ) -> Looked {
        self.permit = permits.try_take();
        if self.permit.is_none() {
            if let Some(look) = self.read(policy, shown.as_deref_mut()).await? {
                return Ok(look);
            }
            let patience = self.engine.deadline_of(policy.lease());
            self.permit = permits.take_unless_busy(patience).await;
            if self.permit.is_none() {
                return Ok(Look::TooBusy);
            }
        }
        let looked = self.claim_or_report(policy, shown).await;
        if !matches!(looked, Ok(Look::Claimed(_))) {
            self.permit = None;
        }
        looked
    }

    /// Reads the record; `None` if this request may run.
    async fn read(
        &mut self,
        policy: &ClaimPolicy,
        shown: Option<&mut Option<Record>>,
    ) -> Result<Option<Look>, BackendError> {
        let Self { engine, key, claim, .. } = &*self;
        let reading = engine.within_deadline(Call::Read, claim.lease, engine.0.backend.read(key));
        let Some(record) = reading.await? else {
            return Ok(None);
        };
        if let Some(shown) = shown {
            *shown = Some(record.clone());
        }
        Ok(match self.interpret(record, policy) {
            Found::Look(look) => Some(look),
            Found::Own | Found::Ownerless(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_call_and_not_for_a_handler() {
        let permits = Permits::new(2);
        let mut one = permits.try_take().expect("two are free");
        let mut other = permits.try_take().expect("one is free");
        assert!(permits.try_take().is_none());

        one.start();
        let mut waiting = Box::pin(permits.take_unless_busy(PATIENCE));
        assert!(
            waiting.as_mut().now_or_never().is_none(),
            "one of the two is only a call"
        );
        drop(other);
        let third = waiting.await.expect("the call has ended");

        other = third;
        other.start();
        assert!(
            permits
                .take_unless_busy(PATIENCE)
                .now_or_never()
                .expect("at once")
                .is_none()
        );
        drop(one);
        assert!(permits.try_take().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_does_not_end_is_waited_for_only_so_long() {
        let permits = Permits::new(1);
        let _call = permits.try_take();
        assert!(permits.take_unless_busy(PATIENCE).await.is_none());
    }
}
