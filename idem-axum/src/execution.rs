//! What a handler may know of its own run.
//!
//! Owns the extractor, and where the durable steps of the run are found. It is extracted before the claim, as every argument is, and
//! filled in when the claim is acquired.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use idem_core::key::unrepeatable_key;
use idem_core::{Claim, RecordKey, Steps, Token};

use crate::Idempotency;
use crate::layer::LayerRun;

/// An extractor that tells a handler under `#[idempotent]` which run it is.
///
/// ```
/// use idem_axum::{Execution, idempotent};
///
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn charge(execution: Execution, body: String) -> String {
///     let key = execution.downstream_key("charge");
///     // Every attempt of this request calls the provider with the same key, and no other request does.
///     format!("charging {body} under {key}, attempt {}", execution.attempt())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Execution(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// `Some(None)` where the handler runs without a claim.
    own: OnceLock<Option<Filled>>,
    /// That of a layer around a handler that has none of its own.
    layer: Option<Execution>,
    /// Whether an argument asks for durable steps.
    wants_steps: AtomicBool,
    steps: OnceLock<Steps>,
    /// The engine of a layer's run, if its backend keeps no steps.
    without_steps: Option<Idempotency>,
}

#[derive(Debug)]
struct Filled {
    record: RecordKey,
    attempt: u32,
    token: Token,
    began_at: SystemTime,
}

impl Execution {
    /// The record's key: operation, scope and idempotency key. `None` where the handler runs unprotected: for a request
    /// without a key, in an outage, or called directly.
    #[must_use]
    pub fn record_key(&self) -> Option<&str> {
        self.filled().map(|filled| filled.record.as_str())
    }

    /// Which run of this request it is: 1, and one more each time after a process died, or stalled beyond its lease.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.filled().map_or(1, |filled| filled.attempt)
    }

    /// When the first attempt of this request began, by the clock of the process that ran it; `None` where the handler runs
    /// unprotected.
    ///
    /// A handler that calls a service which remembers idempotency keys for a day can tell by it whether the key that an earlier
    /// attempt has sent is still known there.
    #[must_use]
    pub fn began_at(&self) -> Option<SystemTime> {
        self.filled().map(|filled| filled.began_at)
    }

    /// What tells this run's claim from any other one, for storing beside an effect; `None` where the handler runs
    /// unprotected. Tokens are not ordered; within one record, attempts are.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        self.filled().map(|filled| FencingToken(filled.token))
    }

    /// A key for a call that the handler makes itself, in the form of a UUID (version 8 of RFC 9562).
    ///
    /// It is the same for every attempt of this request, and different for each label and each record. A call that the
    /// other side has already carried out for an earlier attempt is then not carried out again. Where the handler runs
    /// unprotected it is new each time, because nothing tells a retry from a first request.
    #[must_use]
    pub fn downstream_key(&self, label: &str) -> String {
        match self.filled() {
            Some(filled) => filled.record.downstream_key(label),
            None => unrepeatable_key(label),
        }
    }

    /// The one of a request, for all its arguments and its guard. One that is filled in belongs to a handler that hands its
    /// request on, and not to the next one.
    pub(crate) fn of(extensions: &mut Extensions) -> Self {
        match extensions.get::<Self>() {
            Some(execution) if execution.0.own.get().is_none() => execution.clone(),
            _ => {
                let layer = extensions.get::<LayerRun>().map(|layer| layer.execution.clone());
                let execution = Self(Arc::new(Shared {
                    layer,
                    ..Shared::default()
                }));
                extensions.insert(execution.clone());
                execution
            }
        }
    }

    /// Fills it in for a handler that runs under a claim.
    pub(crate) fn fill(&self, record: &RecordKey, claim: &Claim) {
        let Claim {
            attempt,
            token,
            began_at,
            ..
        } = *claim;
        let record = record.clone();
        // An execution belongs to one handler, which runs at most once.
        let _ = self.0.own.set(Some(Filled {
            record,
            attempt,
            token,
            began_at,
        }));
    }

    /// The one of a run of a layer, which has to be filled in.
    pub(crate) fn of_layer(idempotency: &Idempotency) -> Self {
        Self(Arc::new(Shared {
            without_steps: (!idempotency.keeps_steps()).then(|| idempotency.clone()),
            ..Shared::default()
        }))
    }

    /// Fills it in for a handler that runs without a claim.
    pub(crate) fn fill_unprotected(&self) {
        let _ = self.0.own.set(None);
    }

    /// An argument asks for durable steps.
    pub(crate) fn note_steps(&self) {
        self.0.wants_steps.store(true, Ordering::Relaxed);
    }

    /// Whether an argument asks for durable steps.
    pub(crate) fn wants_steps(&self) -> bool {
        self.0.wants_steps.load(Ordering::Relaxed)
    }

    /// Fills in the steps of the run.
    pub(crate) fn fill_steps(&self, steps: Steps) {
        // An execution belongs to one handler, which runs at most once.
        let _ = self.0.steps.set(steps);
    }

    /// The steps of the run: this handler's, or those of a layer around it.
    pub(crate) fn steps(&self) -> &Steps {
        match (self.0.own.get(), &self.0.layer) {
            (None, Some(layer)) => layer.steps(),
            (Some(_), _) => self.0.steps.get_or_init(|| self.without_records()),
            (None, None) => self.0.steps.get_or_init(|| {
                tracing::error!("a handler takes Steps, and nothing guards it; annotate it with #[idempotent], or add an IdempotencyLayer");
                Steps::unguarded()
            }),
        }
    }

    /// The steps of a run under which none are recorded.
    fn without_records(&self) -> Steps {
        let Some(idempotency) = &self.0.without_steps else {
            return Steps::unprotected();
        };
        idempotency.note_lack_of_steps();
        if idempotency.settings().is_observing() {
            return Steps::unprotected();
        }
        Steps::unguarded()
    }

    fn filled(&self) -> Option<&Filled> {
        match (self.0.own.get(), &self.0.layer) {
            (Some(own), _) => own.as_ref(),
            (None, Some(layer)) => layer.filled(),
            (None, None) => None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Execution {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&mut parts.extensions))
    }
}

/// What tells the claim of one run from any other; shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FencingToken(Token);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use idem_core::{ClaimPolicy, Fingerprint, IdempotencyKey, Scope};

    use super::*;

    fn execution(key: &str) -> Execution {
        let record = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(key)).expect("a valid key");
        let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(1)));
        let execution = Execution(Arc::default());
        execution.fill(&record, &claim);
        execution
    }

    #[test]
    fn a_downstream_key_is_stable_across_attempts_and_frozen() {
        assert_eq!(
            execution("k").downstream_key("charge"),
            execution("k").downstream_key("charge")
        );
        assert_eq!(
            execution("k").downstream_key("charge"),
            "812cba4b-6bb4-810a-8151-5af91df71456"
        );
        assert_ne!(execution("k").token(), execution("k").token());
    }

    #[test]
    fn it_differs_by_label_and_by_record() {
        let (one, other) = (execution("k"), execution("l"));
        assert_ne!(one.downstream_key("charge"), one.downstream_key("mail"));
        assert_ne!(one.downstream_key("charge"), other.downstream_key("charge"));
    }

    #[test]
    fn unprotected_there_is_no_key_to_repeat() {
        let unprotected = Execution(Arc::default());
        assert_ne!(
            unprotected.downstream_key("charge"),
            unprotected.downstream_key("charge")
        );
        assert_eq!((unprotected.record_key(), unprotected.attempt()), (None, 1));
        assert!(unprotected.token().is_none());
    }
}
