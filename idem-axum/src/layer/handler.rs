//! The inner service, as the handler of a request to a layer.
//!
//! Owns reading what is compared of a request, the call of the inner service, and what its failures mean for the record.
//!
//! | the inner service | the record | the caller gets |
//! |---|---|---|
//! | answers | as the answer is kept | its answer |
//! | is busy for [`READY_WITHIN`] | released | 503 `not-ready` |
//! | fails while it is asked whether it is ready | released | its error |
//! | fails once it is called | released, or unknown under `after_crash = "refuse"` | its error |

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::request::Parts;
use bytes::Bytes;
use idem_core::{Completion, HandlerResult, RecordKey, RecordOutcome, Run};
use idem_http::answer::{self, AnswerRules};
use idem_http::body::made;
use idem_http::fingerprint::{ComparedPath, RequestHash, of_request};
use idem_http::request_body::{BodyError, buffer};
use idem_http::{
    BoxError, Compared, Handler, IdempotencyProblem, Policy, RequestIdentity, ResponseBody, fingerprint, interned,
    problem,
};
use tokio::time::timeout;
use tower_service::Service;

use super::remembered::Remembered;
use super::service::{LayerRun, Shared};
use crate::Execution;

/// For how long the inner service may be busy before a request that has its claim is refused.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// An answer, as `idem-http` has it.
pub(super) type Answer = axum::http::Response<ResponseBody<Body>>;

/// A request, and the inner service that answers it.
pub(super) struct LayerHandler<S, E> {
    pub(super) inner: S,
    pub(super) head: Parts,
    pub(super) body: Body,
    pub(super) shared: Arc<Shared>,
    /// The error of the inner service, which the caller of the layer gets.
    pub(super) failure: Arc<Mutex<Option<E>>>,
}

impl<S, E> LayerHandler<S, E> {
    /// Reads what is compared of a request, and says what tells it from another one under its key.
    pub(super) async fn read_compared(
        &mut self,
        policy: &Policy,
        uri: &Uri,
    ) -> Result<RequestIdentity, axum::http::Response<idem_http::Body>> {
        let identity = |fingerprint| RequestIdentity {
            fingerprint,
            is_incomplete: false,
        };
        let Parts { method, headers, .. } = &self.head;
        if policy.fingerprint() == Compared::Nothing {
            // A layer has many routes, so method, path and query are compared all the same.
            let nothing = serde_json::Value::Null;
            return Ok(identity(fingerprint::of_value(
                method,
                uri,
                ComparedPath::Whole,
                nothing,
            )));
        }
        let mut hash = RequestHash::new(method, uri, headers);
        let alike = interned::alike(method, uri, headers.get(policy.header()));
        match self.buffer(&mut hash, alike).await {
            Ok(()) => Ok(identity(of_request(hash.finish()))),
            Err(BodyError::TooLarge) => {
                let settings = self.shared.idempotency.settings();
                Err(settings.problem(IdempotencyProblem::TooLarge))
            }
            Err(error) => {
                tracing::debug!(?error, "the body of a request broke off before it could be compared");
                Err(problem::body_failed())
            }
        }
    }

    /// Reads the body into memory. If that fails where the service only observes, the inner service gets the body as it came.
    async fn buffer(&mut self, hash: &mut RequestHash, alike: u64) -> Result<(), BodyError> {
        let (body, limit) = (std::mem::take(&mut self.body), self.shared.body_limit);
        if !self.shared.idempotency.settings().is_observing() {
            self.body = Body::new(buffer(body, hash, limit, || alike).await?);
            return Ok(());
        }
        let remembered = Remembered::new(body);
        match buffer(remembered.ahead(), hash, limit, || alike).await {
            Ok(body) => {
                self.body = Body::new(body);
                Ok(())
            }
            Err(error) => {
                self.body = remembered.again();
                Err(error)
            }
        }
    }
}

/// How the call of an inner service ended.
enum Called<R, E> {
    Answered(axum::http::Response<R>),
    /// It was not called: it was busy for too long.
    NotReady,
    /// It was not called: it has failed for good.
    NeverReady(E),
    /// It was called, and gave no answer. How far it came is not known.
    Failed(E),
}

impl<S, R> LayerHandler<S, S::Error>
where
    S: Service<Request, Response = axum::http::Response<R>>,
{
    /// Calls the inner service once it is ready.
    async fn call(self) -> (Called<R, S::Error>, Arc<Mutex<Option<S::Error>>>) {
        let mut inner = self.inner;
        // A service that is only observed is as busy as it was without idem.
        let is_observing = self.shared.idempotency.settings().is_observing();
        let patience = if is_observing { Duration::MAX } else { READY_WITHIN };
        let called = match timeout(patience, poll_fn(|context| inner.poll_ready(context))).await {
            Ok(Ok(())) => match inner.call(Request::from_parts(self.head, self.body)).await {
                Ok(response) => Called::Answered(response),
                Err(error) => Called::Failed(error),
            },
            Ok(Err(error)) => Called::NeverReady(error),
            Err(_elapsed) => Called::NotReady,
        };
        (called, self.failure)
    }
}

impl<S, R> LayerHandler<S, S::Error>
where
    S: Service<Request, Response = axum::http::Response<R>, Error: Display + Send + 'static, Future: Send>,
    S: Clone + Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    /// Calls the inner service under a claim.
    fn run_in(
        mut self,
        layer_run: LayerRun,
        key: RecordKey,
        mut rules: AnswerRules,
    ) -> impl Future<Output = HandlerResult<Answer>> + Send + 'static + use<S, R> {
        rules.passes_verdict = layer_run.is_inside_of_another();
        let extensions = &mut self.head.extensions;
        extensions.insert(layer_run);
        // An execution that a layer outside of this one has asked for is not that of this claim.
        extensions.remove::<Execution>();
        async move {
            let (called, failure) = self.call().await;
            match called {
                Called::Answered(response) => answer::finish(response.map(Body::new), &rules),
                Called::NotReady => released(made(problem::not_ready())),
                Called::NeverReady(error) => {
                    tracing::warn!(key = %key.shown(), %error, "the service inside of an IdempotencyLayer is not ready; it did not run");
                    hand_to_caller(&failure, error);
                    released(placeholder())
                }
                Called::Failed(error) => {
                    tracing::warn!(key = %key.shown(), %error, "the service inside of an IdempotencyLayer failed without an answer");
                    hand_to_caller(&failure, error);
                    if rules.refuses_reruns {
                        return HandlerResult::Whole {
                            answer: placeholder(),
                            outcome: RecordOutcome::complete(Completion::Unknown),
                        };
                    }
                    released(placeholder())
                }
            }
        }
    }
}

impl<S, R> Handler<Body> for LayerHandler<S, S::Error>
where
    S: Service<Request, Response = axum::http::Response<R>, Error: Display + Send + 'static, Future: Send>,
    S: Clone + Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn run(
        mut self,
        record: &RecordKey,
        run: &mut Run,
        rules: AnswerRules,
    ) -> impl Future<Output = HandlerResult<Answer>> + Send + 'static + use<S, R> {
        let outer = self.head.extensions.remove();
        let layer_run = LayerRun::claimed(outer, record, run, &self.shared);
        self.run_in(layer_run, record.clone(), rules)
    }

    /// Nothing of the inner service is tied to the record, and no step is recorded.
    fn run_observed(
        mut self,
        record: &RecordKey,
        run: &mut Run,
        rules: AnswerRules,
        _: Duration,
    ) -> impl Future<Output = HandlerResult<Answer>> + Send + 'static + use<S, R> {
        let outer = self.head.extensions.remove();
        let layer_run = LayerRun::observed(outer, record, run, &self.shared);
        self.run_in(layer_run, record.clone(), rules)
    }

    fn run_unprotected(mut self, _: &Policy, _: Duration) -> impl Future<Output = Answer> + Send + 'static + use<S, R> {
        let extensions = &mut self.head.extensions;
        // A layer outside may have a claim for the request, whose steps are recorded.
        if extensions.get::<LayerRun>().is_none() {
            extensions.insert(LayerRun::unprotected(&self.shared));
        }
        // An execution that a layer outside of this one has asked for knows nothing of this one.
        extensions.remove::<Execution>();
        async move {
            let (called, failure) = self.call().await;
            match called {
                Called::Answered(response) => answer::unrecorded(response.map(Body::new)).map(ResponseBody::own),
                Called::NotReady => made(problem::not_ready()),
                Called::NeverReady(error) | Called::Failed(error) => {
                    hand_to_caller(&failure, error);
                    placeholder()
                }
            }
        }
    }
}

/// Hands the error of the inner service to the caller of the layer, once the run has ended.
fn hand_to_caller<E>(failure: &Mutex<Option<E>>, error: E) {
    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
}

fn released(answer: Answer) -> HandlerResult<Answer> {
    let outcome = RecordOutcome::Release;
    HandlerResult::Whole { answer, outcome }
}

/// Stands for the answer of a service that failed; its error reaches the caller in its place.
fn placeholder() -> Answer {
    made(axum::http::Response::new(idem_http::Body::empty()))
}
