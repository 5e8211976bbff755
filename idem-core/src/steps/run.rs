//! One step, from its name to its result.
//!
//! Owns the order of looking, starting, calling the body and recording; the table in the parent module has the cases.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::Steps;
use super::attempt::{Attempt, kind_before};
use super::error::{StepError, StepErrorKind};
use super::recorded::{Input, Progress, Recorded};
use crate::Fenced;
use crate::key::unrepeatable_key;

/// A step that is to be run: await it.
#[must_use = "a step runs when it is awaited"]
pub struct StepRun<'a, B, M, W> {
    steps: &'a Steps,
    name: &'static str,
    body: B,
    input: Option<Result<Input, StepError>>,
    mode: M,
    check: Option<Check<'a>>,
    error: PhantomData<fn() -> W>,
}

/// Says whether a step may run now.
type Check<'a> = Box<dyn FnOnce() -> Result<(), StepError> + Send + 'a>;

impl<B, M, W> fmt::Debug for StepRun<'_, B, M, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepRun")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a step's body is told of its step.
#[derive(Clone, Debug)]
pub struct Step {
    steps: Steps,
    name: &'static str,
}

impl Step {
    /// A key for the call that the step makes: the same for every attempt, and different for each step and each record. It is
    /// [`RecordKey::downstream_key`](crate::RecordKey::downstream_key) with the step's name.
    ///
    /// Where the handler runs unprotected, the key is new each time.
    #[must_use]
    pub fn downstream_key(&self) -> String {
        match self.steps.recorded() {
            Some(attempt) => attempt.key().downstream_key(self.name),
            None => unrepeatable_key(self.name),
        }
    }

    /// The name of the step.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The number of this attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.steps.attempt()
    }
}

/// The body may be called again after a crash between its effect and its record.
#[derive(Debug)]
pub struct AtLeastOnce;

/// The body is never called twice: its start is recorded first.
#[derive(Debug)]
pub struct AtMostOnce;

/// As [`AtMostOnce`], and a function finds out what became of a body that was begun.
#[derive(Debug)]
pub struct Reconciled<F>(F);

/// How often a body may be called.
pub trait Mode<T, E>: sealed::Sealed + Send {
    /// Whether the start is recorded before the body is called.
    #[doc(hidden)]
    const RECORDS_START: bool;

    /// Asks what became of a body that was begun; `None` if there is nothing to ask.
    #[doc(hidden)]
    fn reconcile(self) -> impl Future<Output = Option<Result<Option<T>, E>>> + Send;
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::AtLeastOnce {}
    impl Sealed for super::AtMostOnce {}
    impl<F> Sealed for super::Reconciled<F> {}
}

impl<T: Send, E: Send> Mode<T, E> for AtLeastOnce {
    const RECORDS_START: bool = false;

    async fn reconcile(self) -> Option<Result<Option<T>, E>> {
        None
    }
}

impl<T: Send, E: Send> Mode<T, E> for AtMostOnce {
    const RECORDS_START: bool = true;

    async fn reconcile(self) -> Option<Result<Option<T>, E>> {
        None
    }
}

impl<T, E, F, R> Mode<T, E> for Reconciled<F>
where
    F: FnOnce() -> R + Send,
    R: Future<Output = Result<Option<T>, E>> + Send,
    T: Send,
    E: Send,
{
    const RECORDS_START: bool = true;

    async fn reconcile(self) -> Option<Result<Option<T>, E>> {
        Some((self.0)().await)
    }
}

impl<'a, B, W> StepRun<'a, B, AtLeastOnce, W> {
    pub(super) fn new(steps: &'a Steps, name: &'static str, body: B) -> Self {
        Self {
            steps,
            name,
            body,
            input: None,
            mode: AtLeastOnce,
            check: None,
            error: PhantomData,
        }
    }

    /// Never calls the body twice: its start is recorded before it is called, by a round trip of its own.
    ///
    /// If an attempt ends between the start and the record of the end, the next one has [`StepErrorKind::Interrupted`] until the
    /// result is found out. That is also so if the body has returned an error: whether it took effect is then not known.
    pub fn at_most_once(self) -> StepRun<'a, B, AtMostOnce, W> {
        self.in_mode(AtMostOnce)
    }
}

impl<'a, B, W> StepRun<'a, B, AtMostOnce, W> {
    /// Finds out what became of a body that was begun and did not record its end: `Some` is its result, which is recorded and
    /// returned; `None` says that it certainly had no effect, so that it is called again.
    pub fn reconcile<F>(self, find: F) -> StepRun<'a, B, Reconciled<F>, W> {
        self.in_mode(Reconciled(find))
    }
}

impl<'a, B, M, W> StepRun<'a, B, M, W> {
    fn in_mode<N>(self, mode: N) -> StepRun<'a, B, N, W> {
        StepRun {
            steps: self.steps,
            name: self.name,
            body: self.body,
            input: self.input,
            mode,
            check: self.check,
            error: PhantomData,
        }
    }

    /// Calls `check` when the step is awaited, before anything else. Its error is that of the step, whose body is not called then.
    ///
    /// For integrations that know of something which the step would wait for.
    pub fn check_first(mut self, check: impl FnOnce() -> Result<(), StepError> + Send + 'a) -> Self {
        self.check = Some(Box::new(check));
        self
    }

    /// Compares the step's input with that of earlier attempts, by a digest of its serde form: a result of another input is
    /// [`StepErrorKind::Diverged`], and never returned.
    pub fn of(mut self, input: &(impl Serialize + ?Sized)) -> Self {
        self.input = Some(digest(self.name, input));
        self
    }
}

pub(super) fn digest(name: &'static str, input: &(impl Serialize + ?Sized)) -> Result<Input, StepError> {
    let no_form = |error| StepError::new(StepErrorKind::NoSerdeForm, name).with_source(error);
    // Sorted, because equal maps need not have equal orders, and the next version may declare its fields in another order.
    let mut json = serde_json::to_value(input).map_err(no_form)?;
    json.sort_all_objects();
    Ok(Sha256::digest(serde_json::to_vec(&json).map_err(no_form)?).into())
}

impl<'a, B, F, T, E, M, W> IntoFuture for StepRun<'a, B, M, W>
where
    B: FnOnce(Step) -> F + Send + 'a,
    F: Future<Output = Result<T, E>> + Send + 'a,
    T: Serialize + DeserializeOwned + Send + 'a,
    E: From<W> + Send + 'a,
    M: Mode<T, E> + 'a,
    W: From<StepError> + 'a,
{
    type Output = Result<T, E>;
    type IntoFuture = BoxFuture<'a, Result<T, E>>;

    fn into_future(self) -> Self::IntoFuture {
        let failed = |error: StepError| E::from(W::from(error));
        Box::pin(async move {
            let Self {
                steps,
                name,
                body,
                input,
                mode,
                check,
                ..
            } = self;
            check.map_or(Ok(()), |check| check()).map_err(failed)?;
            let input = input.transpose().map_err(failed)?;
            steps.take_name(name).map_err(failed)?;
            let step = Step {
                steps: steps.clone(),
                name,
            };
            let Some(attempt) = steps.recorded() else {
                return body(step).await;
            };
            match attempt.look(name, input).await.map_err(failed)? {
                Looked::Done(result) => return Ok(result),
                Looked::New => {}
                Looked::Started => match mode.reconcile().await {
                    None => return Err(failed(attempt.unsettled(StepErrorKind::Interrupted, name))),
                    Some(found) => {
                        if let Some(result) = found? {
                            let ended = attempt.ended(name, input, &result);
                            attempt.end(name, &ended).await.map_err(failed)?;
                            return Ok(result);
                        }
                    }
                },
            }
            // Also after `reconcile`, which may have taken longer than the lease: another attempt may have called the body since.
            if M::RECORDS_START {
                attempt.start(name, input).await.map_err(failed)?;
            }
            let result = body(step).await?;
            let ended = attempt.ended(name, input, &result);
            attempt.end(name, &ended).await.map_err(failed)?;
            Ok(result)
        })
    }
}

/// What is known of a step before its body.
pub(super) enum Looked<T> {
    New,
    Started,
    Done(T),
}

impl Attempt {
    /// Looks what is recorded of a step.
    pub(super) async fn look<T: DeserializeOwned>(
        &self,
        name: &'static str,
        input: Option<Input>,
    ) -> Result<Looked<T>, StepError> {
        let Some(recorded) = self.find(name).await? else {
            return Ok(Looked::New);
        };
        // An input that is not compared at one of the two times is not another one.
        if let (Some(now), Some(then)) = (input, recorded.input)
            && now != then
        {
            return Err(self.unsettled(StepErrorKind::Diverged, name));
        }
        match recorded.progress {
            Progress::Started => Ok(Looked::Started),
            Progress::DoneWithout => Err(self.unsettled(StepErrorKind::ResultNotKept, name)),
            Progress::Done(result) => {
                let result = serde_json::from_slice(&result);
                let unreadable = |error| self.unsettled(StepErrorKind::Unreadable, name).with_source(error);
                result.map(Looked::Done).map_err(unreadable)
            }
        }
    }

    /// Records that the body is about to be called.
    async fn start(&self, name: &'static str, input: Option<Input>) -> Result<(), StepError> {
        let started = self.recorded(input, Progress::Started);
        match self.record_start(name, &started).await {
            Ok(Fenced::Applied) => Ok(()),
            Ok(Fenced::Superseded) => Err(StepError::new(StepErrorKind::Superseded, name)),
            Err(error) => Err(StepError::of_backend(kind_before(&error), name, error)),
        }
    }

    /// Records the result of the body.
    pub(super) async fn end(&self, name: &'static str, ended: &Recorded) -> Result<(), StepError> {
        match self.record_end(name, ended).await {
            Ok(Fenced::Applied) => Ok(()),
            Ok(Fenced::Superseded) => Err(StepError::new(StepErrorKind::Superseded, name)),
            Err(error) => {
                tracing::error!(
                    key = %self.key().shown(),
                    step = name,
                    error = &error as &dyn std::error::Error,
                    "a step was run and its result is not recorded, so a retry may run it again"
                );
                Err(StepError::of_backend(StepErrorKind::NotRecorded, name, error))
            }
        }
    }

    /// What is recorded of a body that ended with `result`: without the result if it has no serde form, because the body must not be
    /// called again for that.
    pub(super) fn ended<T: Serialize>(&self, name: &'static str, input: Option<Input>, result: &T) -> Recorded {
        let progress = match serde_json::to_vec(result) {
            Ok(json) => self.done_with(name, json),
            Err(error) => {
                tracing::error!(
                    key = %self.key().shown(),
                    step = name,
                    error = &error as &dyn std::error::Error,
                    "the result of a step has no JSON form; the step is recorded as done, and a later attempt cannot go on after it"
                );
                Progress::DoneWithout
            }
        };
        self.recorded(input, progress)
    }
}
