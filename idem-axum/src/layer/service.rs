//! The way of a request through the layer.
//!
//! Owns which requests are guarded, and how the inner service is called for one that is: under its claim, in a task of its own
//! once the client has left. Nothing of the inner service is held while a request waits for its claim: it is asked whether it
//! is ready when the handler is to run (IDEM-20).

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, OriginalUri};
use axum::http::header::UPGRADE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, Uri};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use idem_core::{Claim, Fingerprint, HandlerResult, RecordKey, RecordOutcome};
use idem_http::answer::{self, AnswerRules};
use idem_http::body::made;
use idem_http::fingerprint::{RequestHash, of_request};
use idem_http::identity::{Caller, record_key};
use idem_http::request_body::{BodyError, RequestBody, buffer};
use idem_http::{
    Body, BoxError, Compared, GuardedRequest, Handler, IdempotencyProblem, Observation, Operation, OperationName,
    Policy, ProblemDetails, RequestIdentity, RequestOutcome, ResponseBody, markers, problem,
};
use tower_service::Service;
use tracing::Instrument as _;

use super::{Scoped, When};
use crate::Idempotency;
use crate::execution::{Execution, LayerExecution};

/// A response's body of the inner service, behind a pointer.
pub type LayerBody = UnsyncBoxBody<Bytes, BoxError>;

/// An answer on its way out.
type Answer = Response<ResponseBody<LayerBody>>;

/// A service that is guarded by an [`IdempotencyLayer`](super::IdempotencyLayer).
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// What all requests to a layer share.
pub(super) struct Shared {
    pub(super) idempotency: Idempotency,
    pub(super) operation: Arc<Operation>,
    pub(super) when: Arc<When>,
    pub(super) body_limit: u64,
    pub(super) scope: Scoped,
    /// The log has said that an annotated handler is inside.
    pub(super) has_warned: Arc<AtomicBool>,
}

/// In the extensions of a request that a layer runs: its record there.
#[derive(Clone, Debug)]
pub(crate) struct LayerRecord {
    pub(crate) record: RecordKey,
    has_warned: Arc<AtomicBool>,
}

impl LayerRecord {
    /// Says once that an annotated handler is inside of a layer.
    pub(crate) fn warn_of_handler(&self, method: &Method, path: &str) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %method,
                path,
                "an #[idempotent] handler is inside of an IdempotencyLayer, so that each of its requests has two records; leave \
                 its route out of the layer by `when`, or take the attribute off"
            );
        }
    }
}

impl<S> IdempotencyService<S> {
    pub(super) fn new(inner: S, shared: Shared) -> Self {
        let shared = Arc::new(shared);
        Self { inner, shared }
    }
}

impl<S: fmt::Debug> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Answer;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Answer, S::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // A replay does not need the inner service.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let (inner, shared) = (self.inner.clone(), self.shared.clone());
        if !shared.guards(&head) {
            let request = Request::from_parts(head, RequestBody::own(body));
            return Box::pin(async move { Ok(own(oneshot(inner, request).await?)) });
        }
        let uri = head.extensions.get::<OriginalUri>();
        let uri = uri.map_or_else(|| head.uri.clone(), |original| original.0.clone());
        shared.answer(inner, head, uri, body)
    }
}

/// The answer of an inner service, as it is.
fn own<R>(response: Response<R>) -> Answer
where
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    boxed(response).map(ResponseBody::own)
}

fn boxed<R>(response: Response<R>) -> Response<LayerBody>
where
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

async fn oneshot<S: Service<Q>, Q>(mut service: S, request: Q) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(request).await
}

impl Shared {
    /// Whether a request is one of those that the layer is for.
    fn guards(&self, head: &Parts) -> bool {
        let switches_protocols = head.method == Method::CONNECT || head.headers.contains_key(UPGRADE);
        !switches_protocols && (self.when)(head)
    }

    /// Identifies a request, and answers it.
    fn answer<S, B, R>(
        self: Arc<Self>,
        inner: S,
        head: Parts,
        uri: Uri,
        body: B,
    ) -> BoxFuture<'static, Result<Answer, S::Error>>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let route = head.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        let name = OperationName::of(&self.operation, &head.method, route, uri.path()).of_layer();
        let mut observation = Observation::start(&name, || name.label());
        let span = observation.span();
        let guarded = GuardedRequest {
            setup: self.idempotency.clone(),
            operation: self.operation.clone(),
            is_head: head.method == Method::HEAD,
        };
        let policy = guarded.policy();
        let identified = span.in_scope(|| self.identify(&name, &policy, &head));
        let record = match identified {
            Ok(record) => record,
            Err(refused) => {
                observation.end(RequestOutcome::of_problem(refused.problem));
                let refusal = made(self.idempotency.settings().refuse(refused));
                return Box::pin(async { Ok(refusal) });
            }
        };
        let failure = Arc::new(Mutex::new(None));
        let handler = LayerHandler {
            inner,
            head,
            body,
            shared: self.clone(),
            failure: failure.clone(),
        };
        let answering = async move {
            let Some(record) = record else {
                let handler = handler.map_body(RequestBody::own);
                let answer = guarded.answer_unprotected(handler).await;
                observation.end(RequestOutcome::Unprotected);
                return answer;
            };
            observation.identified(&record, self.idempotency.settings().key_label);
            match handler.read(&self, &policy, &uri).await {
                Ok((identity, handler)) => guarded.answer(observation, record, identity, handler).await,
                Err(refusal) => {
                    observation.end(RequestOutcome::BodyRefused);
                    made(refusal)
                }
            }
        };
        answering
            .instrument(span)
            .map(move |answer| {
                let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                failed.map_or(Ok(answer), Err)
            })
            .boxed()
    }

    /// Tells which record a request belongs to; none where it has no key and needs none.
    fn identify(
        &self,
        name: &OperationName<'_>,
        policy: &Policy,
        head: &Parts,
    ) -> Result<Option<RecordKey>, ProblemDetails> {
        let settings = self.idempotency.settings();
        let Some(scope) = self.scope.of(head) else {
            tracing::error!(
                method = %head.method,
                path = head.uri.path(),
                "a request to an IdempotencyLayer has no scope, and did not run; add the layer that finds out who calls outside of \
                 it: a later `.layer(..)` of the router"
            );
            return Err(settings.details(IdempotencyProblem::NotConfigured));
        };
        let mut lines = head.headers.get_all(policy.header()).iter();
        let caller = Caller {
            scope: &scope,
            is_scope_from_client: false,
            natural_key: None,
            key_lines: [lines.next(), lines.next()],
        };
        record_key(settings, name, policy, &caller)
    }
}

/// A request, and the inner service that answers it. `B` is the request's body.
struct LayerHandler<S, B, E> {
    inner: S,
    head: Parts,
    body: B,
    shared: Arc<Shared>,
    /// The error of the inner service, which the caller of the layer gets.
    failure: Arc<Mutex<Option<E>>>,
}

impl<S, B, E> LayerHandler<S, B, E> {
    fn map_body<C>(self, map: impl FnOnce(B) -> C) -> LayerHandler<S, C, E> {
        LayerHandler {
            body: map(self.body),
            inner: self.inner,
            head: self.head,
            shared: self.shared,
            failure: self.failure,
        }
    }

    /// Reads what is compared of a request.
    async fn read(
        self,
        shared: &Shared,
        policy: &Policy,
        uri: &Uri,
    ) -> Result<(RequestIdentity, LayerHandler<S, RequestBody<B>, E>), Response<Body>>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let identity = |fingerprint| RequestIdentity {
            fingerprint,
            is_incomplete: false,
        };
        if policy.fingerprint() == Compared::Nothing {
            return Ok((identity(Fingerprint::NONE), self.map_body(RequestBody::own)));
        }
        let Parts { method, headers, .. } = &self.head;
        let mut hash = RequestHash::new(method, uri, headers);
        let mut keys = headers.get_all(policy.header()).iter();
        let alike = alike(method, uri, keys.next());
        let settings = shared.idempotency.settings();
        let body = match buffer(self.body, &mut hash, shared.body_limit, || alike).await {
            Ok(body) => body,
            Err(BodyError::TooLarge) => return Err(settings.problem(IdempotencyProblem::TooLarge)),
            Err(_failed) => return Err(problem::body_failed()),
        };
        let handler = LayerHandler {
            inner: self.inner,
            head: self.head,
            body,
            shared: self.shared,
            failure: self.failure,
        };
        Ok((identity(of_request(hash.finish())), handler))
    }
}

/// A hash of what is known of a request before its body.
fn alike(method: &Method, uri: &Uri, key: Option<&HeaderValue>) -> u64 {
    let mut hash = DefaultHasher::new();
    (method, uri, key).hash(&mut hash);
    hash.finish()
}

impl<S, B, R> Handler<LayerBody> for LayerHandler<S, RequestBody<B>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn run(
        mut self,
        record: &RecordKey,
        claim: &Claim,
        rules: AnswerRules,
    ) -> impl Future<Output = HandlerResult<Answer>> + Send + 'static + use<S, B, R> {
        let execution = Execution::begun(record, claim);
        self.head.extensions.insert(LayerExecution(execution));
        self.head.extensions.insert(LayerRecord {
            record: record.clone(),
            has_warned: self.shared.has_warned.clone(),
        });
        async move {
            match oneshot(self.inner, Request::from_parts(self.head, self.body)).await {
                Ok(response) => answer::finish(boxed(response), &rules),
                Err(error) => {
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    failed(&rules)
                }
            }
        }
    }

    fn run_unprotected(self, _: &Policy, _: Duration) -> impl Future<Output = Answer> + Send + 'static + use<S, B, R> {
        async move {
            match oneshot(self.inner, Request::from_parts(self.head, self.body)).await {
                Ok(response) => own(markers::taken_off(response)),
                Err(error) => {
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    placeholder()
                }
            }
        }
    }
}

/// The inner service has given no answer. How far it came is not known.
fn failed(rules: &AnswerRules) -> HandlerResult<Answer> {
    let answer = placeholder();
    if rules.refuses_reruns {
        return HandlerResult::Unknown { answer };
    }
    let outcome = RecordOutcome::Release;
    HandlerResult::Whole { answer, outcome }
}

/// Stands for the answer of a service that failed; its error reaches the caller in its place.
fn placeholder() -> Answer {
    made(Response::new(Body::empty()))
}
