//! What one attempt knows of its steps, and what it tells the backend.
//!
//! Owns the steps that earlier attempts have recorded, which are read once, at the first step; the names and sizes of its own; and
//! whether the claim may have steps. Does not own when a body is called: [`run`](super::run).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use super::error::{StepError, StepErrorKind};
use super::recorded::{Progress, Recorded};
use crate::engine::Engine;
use crate::observe::Call;
use crate::{BackendError, BackendErrorKind, Claim, Fenced, Record, RecordKey};

/// The pauses between tries to record the end of a step: none before the second try, then this, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest name of a step.
const MAX_NAME_LEN: usize = 64;

/// How many steps an attempt may have, and how large their results may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// The most steps of an attempt; 64 by default. One more is an error.
    pub most: usize,
    /// The most bytes of one result, as JSON; 64 KiB by default. A larger one is recorded as done, and its result is not kept.
    pub result_bytes: usize,
    /// The most bytes of all results; 256 KiB by default. The same holds beyond it.
    pub total_bytes: usize,
}

impl Default for StepLimits {
    fn default() -> Self {
        Self {
            most: 64,
            result_bytes: 64 * 1024,
            total_bytes: 256 * 1024,
        }
    }
}

/// Whether a step can have this name: 1 to 64 ASCII letters, digits, `-` and `_`.
#[must_use]
pub fn is_step_name(name: &str) -> bool {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= MAX_NAME_LEN && name.bytes().all(harmless)
}

/// The names that an attempt has used.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashSet<&'static str>>);

impl Names {
    /// Checks a name and takes it.
    pub(super) fn take(&self, name: &'static str, most: usize) -> Result<(), StepError> {
        if !is_step_name(name) {
            return Err(StepError::new(StepErrorKind::NameInvalid, name));
        }
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return Err(StepError::new(StepErrorKind::NameUsedTwice, name));
        }
        if names.len() >= most {
            return Err(StepError::new(StepErrorKind::TooMany, name));
        }
        names.insert(name);
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }
}

/// The steps of an attempt that runs under a claim.
#[derive(Debug)]
pub(crate) struct Attempt {
    engine: Engine,
    key: RecordKey,
    claim: Claim,
    limits: StepLimits,
    /// Whether the claim may have steps: it had some when the attempt began, or this attempt has tried to record one.
    may_have_steps: AtomicBool,
    /// Whether the backend has said that a step is recorded, to this attempt or an earlier one.
    knows_of_steps: AtomicBool,
    /// What earlier attempts have recorded.
    earlier: OnceCell<HashMap<String, Bytes>>,
    names: Names,
    done: Mutex<HashSet<&'static str>>,
    /// The bytes of all results that are kept.
    bytes: AtomicUsize,
    /// Whether a step could not go on until somebody settles it.
    is_unsettled: AtomicBool,
}

impl Attempt {
    pub(crate) fn new(engine: Engine, key: RecordKey, claim: Claim, limits: StepLimits) -> Self {
        let has_steps = claim.has_steps;
        Self {
            engine,
            key,
            claim,
            limits,
            may_have_steps: AtomicBool::new(has_steps),
            knows_of_steps: AtomicBool::new(has_steps),
            earlier: OnceCell::new(),
            names: Names::default(),
            done: Mutex::default(),
            bytes: AtomicUsize::new(0),
            is_unsettled: AtomicBool::new(false),
        }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Whether the backend keeps steps.
    pub(super) fn keeps_steps(&self) -> bool {
        self.engine.keeps_steps()
    }

    pub(super) fn limits(&self) -> StepLimits {
        self.limits
    }

    pub(super) fn key(&self) -> &RecordKey {
        &self.key
    }

    /// Whether the backend has said that a step is recorded.
    pub(crate) fn knows_of_steps(&self) -> bool {
        self.knows_of_steps.load(Ordering::Relaxed)
    }

    /// The claim as it is now.
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            has_steps: self.may_have_steps.load(Ordering::Relaxed),
            ..self.claim.clone()
        }
    }

    /// The error of a step that cannot go on until somebody settles it.
    pub(super) fn unsettled(&self, kind: StepErrorKind, name: &str) -> StepError {
        self.is_unsettled.store(true, Ordering::Relaxed);
        StepError::new(kind, name)
    }

    pub(super) fn is_unsettled(&self) -> bool {
        self.is_unsettled.load(Ordering::Relaxed)
    }

    /// What earlier attempts have recorded under `name`.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Recorded>, StepError> {
        if !self.claim.has_steps {
            return Ok(None);
        }
        let earlier = self.earlier.get_or_try_init(|| self.read(name)).await?;
        let Some(bytes) = earlier.get(name) else {
            return Ok(None);
        };
        let recorded = Recorded::decode(bytes);
        recorded
            .map(Some)
            .ok_or_else(|| self.unsettled(StepErrorKind::Unreadable, name))
    }

    async fn read(&self, name: &str) -> Result<HashMap<String, Bytes>, StepError> {
        let Some(store) = self.engine.step_store() else {
            return Err(StepError::new(StepErrorKind::NotConfigured, name));
        };
        let reading = || store.read_steps(&self.key, &self.claim);
        let read = self.engine.ask(Call::ReadSteps, self.claim.lease, reading).await;
        let read = read.map_err(|error| StepError::of_backend(kind_before(&error), name, error))?;
        let Some(steps) = read else {
            return Err(StepError::new(StepErrorKind::Superseded, name));
        };
        if steps.is_empty() {
            self.check_that_none_are_lost(name).await?;
        }
        self.bytes
            .fetch_add(steps.iter().map(|(_, step)| step.len()).sum(), Ordering::Relaxed);
        Ok(steps.into_iter().collect())
    }

    /// The claim had steps when it was taken over, and has none. They are lost, unless the record expired before the takeover
    /// arrived: then the takeover has claimed anew, without steps.
    async fn check_that_none_are_lost(&self, name: &str) -> Result<(), StepError> {
        let found = self.engine.read(&self.key, self.claim.lease).await;
        let found = found.map_err(|error| StepError::of_backend(kind_before(&error), name, error))?;
        match found {
            Some(Record::Claimed { claim: held, .. }) if held.token == self.claim.token => {
                if !held.has_steps {
                    self.knows_of_steps.store(false, Ordering::Relaxed);
                    return Ok(());
                }
            }
            _ => return Err(StepError::new(StepErrorKind::Superseded, name)),
        }
        tracing::error!(
            key = %self.key.shown(),
            attempt = self.claim.attempt,
            "the backend has lost the steps of earlier attempts of this request, so it cannot go on; find out what they did. \
             Look whether the backend evicts keys"
        );
        Err(self.unsettled(StepErrorKind::Lost, name))
    }

    pub(super) async fn is_done(&self, name: &'static str) -> Result<bool, StepError> {
        if self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return Ok(true);
        }
        let found = self.find(name).await?;
        Ok(found.is_some_and(|found| found.progress != Progress::Started))
    }

    /// The progress of a step that ended with this result: without it, if it is too large.
    pub(super) fn done_with(&self, name: &str, result: Vec<u8>) -> Progress {
        let before = self.bytes.fetch_add(result.len(), Ordering::Relaxed);
        let (len, total) = (result.len(), before + result.len());
        if len <= self.limits.result_bytes && total <= self.limits.total_bytes {
            return Progress::Done(result.into());
        }
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        tracing::warn!(
            key = %self.key.shown(),
            step = name,
            bytes = len,
            "the result of a step is too large to be kept; the step is recorded as done, and a later attempt cannot go on after it. \
             Return less, such as an id"
        );
        Progress::DoneWithout
    }

    /// What the backend is to record of a step.
    pub(super) fn recorded(&self, input: Option<super::recorded::Input>, progress: Progress) -> Recorded {
        Recorded {
            attempt: self.claim.attempt,
            input,
            progress,
        }
    }

    /// Records that a body is about to be called. If the connection breaks, the start is sent again only if it certainly was not
    /// written. Otherwise it may be on its way, and the one that arrives last might arrive after the end of the step, and take its
    /// place.
    pub(super) async fn record_start(&self, name: &'static str, step: &Recorded) -> Result<Fenced, BackendError> {
        match self.record(name, step).await {
            Err(error) if error.kind() == BackendErrorKind::Unavailable => {
                if error.is_not_written() {
                    self.record(name, step).await
                } else {
                    self.find_start(name, step).await.unwrap_or(Err(error))
                }
            }
            recorded => recorded,
        }
    }

    /// Whether a start has arrived whose call has failed; `None` if that is not known.
    async fn find_start(&self, name: &'static str, start: &Recorded) -> Option<Result<Fenced, BackendError>> {
        let (store, claim, bytes) = (self.engine.step_store()?, self.claim(), start.encode());
        let reading = || store.read_steps(&self.key, &claim);
        match self.engine.ask(Call::ReadSteps, claim.lease, reading).await {
            Ok(None) => Some(Ok(Fenced::Superseded)),
            Ok(Some(steps)) if steps.iter().any(|(known, step)| known == name && *step == bytes) => {
                self.note(name, &start.progress);
                Some(Ok(Fenced::Applied))
            }
            Ok(Some(_)) | Err(_) => None,
        }
    }

    /// Records the end of a body. Tries for a lease, because a body whose end is not recorded may be called again.
    pub(super) async fn record_end(&self, name: &'static str, step: &Recorded) -> Result<Fenced, BackendError> {
        let (began, mut pause) = (Instant::now(), Duration::ZERO);
        loop {
            match self.record(name, step).await {
                Err(error) if error.is_transient() && began.elapsed() + pause < self.claim.lease => {
                    tracing::debug!(key = %self.key.shown(), step = name, %error, "the end of a step is not recorded yet");
                    sleep(pause).await;
                    pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                }
                recorded => return recorded,
            }
        }
    }

    async fn record(&self, name: &'static str, step: &Recorded) -> Result<Fenced, BackendError> {
        let Some(store) = self.engine.step_store() else {
            let context = "the backend keeps no steps";
            return Err(BackendError::new(BackendErrorKind::Config, context).not_written());
        };
        let (claim, bytes) = (self.claim_to_record(), step.encode());
        let recording = store.record_step(&self.key, &claim, name, &bytes);
        let recorded = self
            .engine
            .within_deadline(Call::RecordStep, claim.lease, recording)
            .await;
        if matches!(recorded, Ok(Fenced::Applied)) {
            self.note(name, &step.progress);
        }
        recorded
    }

    /// The claim under which a step is recorded now: it has steps if one is known to be recorded, so that the backend can tell whether
    /// it has lost it. From now on the claim may have steps, because the answer may be lost.
    pub(super) fn claim_to_record(&self) -> Claim {
        self.may_have_steps.store(true, Ordering::Relaxed);
        Claim {
            has_steps: self.knows_of_steps.load(Ordering::Relaxed),
            ..self.claim.clone()
        }
    }

    /// How long a call about the claim may take.
    pub(super) fn deadline(&self) -> Duration {
        self.engine.deadline_of(self.claim.lease)
    }

    /// Notes that a step is recorded.
    pub(super) fn note(&self, name: &'static str, progress: &Progress) {
        self.knows_of_steps.store(true, Ordering::Relaxed);
        if *progress != Progress::Started {
            self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        }
    }

    /// Warns of steps of earlier attempts that this one, which has ended well, did not ask for.
    pub(crate) fn warn_of_unasked(&self) {
        let Some(earlier) = self.earlier.get() else {
            if self.claim.has_steps {
                tracing::warn!(
                    key = %self.key.shown(),
                    attempt = self.claim.attempt,
                    "an earlier attempt of this request has recorded steps, and this one asked for none of them; if they were \
                     renamed, they ran again"
                );
            }
            return;
        };
        let mut unasked: Vec<_> = earlier.keys().filter(|name| !self.names.has(name)).collect();
        unasked.sort();
        if !unasked.is_empty() {
            tracing::warn!(
                key = %self.key.shown(),
                attempt = self.claim.attempt,
                steps = ?unasked,
                "an earlier attempt of this request has recorded steps that this one did not ask for; if they were renamed, they ran \
                 again"
            );
        }
    }
}

/// The kind of an error by which the body of a step is not called.
pub(super) fn kind_before(error: &BackendError) -> StepErrorKind {
    match error.kind() {
        BackendErrorKind::Unreadable => StepErrorKind::Lost,
        _ => StepErrorKind::Unavailable,
    }
}
