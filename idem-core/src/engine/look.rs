//! The result of one look at a record, and its meaning for the request that looks.
//!
//! Owns the types, and when a retry makes sense while another request holds the key. Does not own how a request looks:
//! [`pending`](super::pending).

use std::time::Duration;

use tokio::time::Instant;

use super::Duplicate;
use crate::observe;
use crate::{BackendError, Claim, RecordKey};

/// When to retry while the owner of the claim renews it.
const SOON: Duration = Duration::from_secs(1);

/// The shortest pause of a waiter that could not subscribe, or whose look has failed.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The result of one look at the record.
pub(super) enum Look {
    Claimed(Instant),
    Duplicate(Duplicate),
    InFlight(InFlightClaim),
    /// The backend failed.
    Failed,
    /// As many handlers run as are allowed.
    TooBusy,
}

/// The result of a look, or the error of the backend.
pub(super) type Looked = Result<Look, BackendError>;

/// A claim that another request holds.
#[derive(Clone, Copy)]
pub(super) struct InFlightClaim {
    /// The rest of the lease.
    pub(super) remaining: Duration,
    /// The whole lease.
    pub(super) lease: Duration,
}

impl InFlightClaim {
    /// A claim of which only its existence is known.
    pub(super) const UNKNOWN: Self = Self {
        remaining: PAUSE,
        lease: PAUSE,
    };

    /// The time after which a retry makes sense.
    ///
    /// The owner renews the lease when a third of it has passed. If less than two thirds are left, the owner has stopped
    /// renewing, and the retry has to wait for the lease to lapse. One twelfth is subtracted from the two thirds, because the
    /// owner pauses for a twelfth of the lease after a failed renewal.
    pub(super) fn retry_after(self) -> Duration {
        if self.remaining < self.lease * 7 / 12 {
            self.remaining.max(SOON)
        } else {
            SOON
        }
    }
}

/// The meaning of an existing record for this request.
pub(super) enum Found {
    Look(Look),
    /// The record is this request's own claim, from a call whose answer was lost.
    Own,
    /// The record is a claim without an owner, and the policy allows taking it over.
    Ownerless(Ownerless),
}

/// A claim whose attempt does not run any more.
pub(super) enum Ownerless {
    /// Its lease has lapsed.
    Lapsed(Claim),
    /// Its attempt ended without an outcome, and its steps are kept.
    Parked(Claim),
}

impl Ownerless {
    pub(super) fn claim(&self) -> &Claim {
        match self {
            Self::Lapsed(claim) | Self::Parked(claim) => claim,
        }
    }

    /// Says why another attempt begins.
    pub(super) fn log(&self, key: &RecordKey, attempt: u32) {
        match self {
            Self::Lapsed(lapsed) => {
                observe::takeover();
                tracing::warn!(
                    key = %key.shown(),
                    attempt,
                    owner = %lapsed.owner,
                    "the owner of this claim let its lease lapse; running again in its place. Look whether its \
                     process died, or stalled for longer than a lease"
                );
            }
            Self::Parked(_) => {
                tracing::info!(key = %key.shown(), attempt, "going on after the steps of an attempt that had no outcome");
            }
        }
    }
}
