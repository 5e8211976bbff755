//! Releasing claims whose handler will not start, in the background.
//!
//! Owns the limit on such releases. No request waits for one, and a claim that is not released ends by its lease. So the
//! limit holds however many clients hang up while the backend is slow. Does not own when a claim is given up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::Instrument as _;

use super::Engine;
use crate::observe::{self, Call, Releasing};
use crate::{BackendError, Claim, Fenced, RecordKey};

/// How many claims may be in the queue, including those that are being released.
const PLACES: usize = 1024;

/// How many claims are released at the same time.
const AT_ONCE: usize = 16;

/// The pause before the second and last try. At the first try, the claiming call may not have arrived yet, or the backend may
/// have been unavailable.
const AGAIN: Duration = Duration::from_secs(1);

/// The queue of claims to release.
#[derive(Debug)]
pub(super) struct Releases {
    places: Arc<Semaphore>,
    at_once: Semaphore,
}

impl Default for Releases {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            at_once: Semaphore::new(AT_ONCE),
        }
    }
}

impl Engine {
    /// Releases a claim that was given up, or parks it if it has steps, if there is a runtime and a place in the queue. Otherwise the claim ends by its
    /// lease.
    pub(super) fn give_up_in_background(&self, key: &RecordKey, claim: &Claim) {
        let Ok(runtime) = Handle::try_current() else { return };
        let Ok(place) = self.0.releases.places.clone().try_acquire_owned() else {
            observe::release_left_out();
            return;
        };
        let release = release(self.clone(), key.clone(), claim.clone(), place);
        self.0.running.spawn_on(release.in_current_span(), &runtime);
    }
}

impl Engine {
    /// The call that ends a claim without an outcome: it is parked if it may have steps, which a release would forget.
    pub(super) fn releasing<'a>(
        &'a self,
        key: &'a RecordKey,
        claim: &'a Claim,
        may_have_steps: bool,
    ) -> (Call, BoxFuture<'a, Result<Fenced, BackendError>>) {
        match self.step_store().filter(|_store| may_have_steps) {
            Some(store) => (Call::Park, store.park(key, claim).boxed()),
            None => (Call::Release, self.0.backend.release(key, claim)),
        }
    }
}

async fn release(engine: Engine, key: RecordKey, claim: Claim, _place: OwnedSemaphorePermit) {
    let _releasing = Releasing::start();
    for is_again in [false, true] {
        if is_again {
            sleep(AGAIN).await;
        }
        let Ok(_turn) = engine.0.releases.at_once.acquire().await else {
            return;
        };
        let (call, releasing) = engine.releasing(&key, &claim, claim.has_steps);
        match engine.within_deadline(call, claim.lease, releasing).await {
            Ok(Fenced::Applied) => return,
            Ok(Fenced::Superseded) => {}
            Err(error) => tracing::debug!(key = %key.shown(), %error, "could not release a claim that was given up"),
        }
    }
}
