//! The way of a request through the layer.
//!
//! Owns which requests are guarded, and how the inner service is called for one that is: under its claim, in a task of its own
//! once the client has left. Nothing of the inner service is held while a request waits for its claim: it is asked whether it
//! is ready when it is to run (IDEM-20).

use std::fmt::{self, Display};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{MatchedPath, OriginalUri, Request};
use axum::http::header::UPGRADE;
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use idem_core::{RecordKey, Run};
use idem_http::body::made;
use idem_http::identity::{Caller, record_key};
use idem_http::observe::answer_of_idem;
use idem_http::{
    BoxError, GuardedRequest, IdempotencyProblem, Observation, Operation, OperationName, Policy, ProblemDetails,
    RequestOutcome,
};
use tower_service::Service;
use tracing::Instrument as _;

use super::handler::{Answer, LayerHandler};
use super::{Scoped, When};
use crate::Idempotency;
use crate::execution::Execution;
use crate::memory_notice::came_over_a_connection;
use crate::run::with_axum_body;

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

/// In the extensions of a request that a layer runs, with a claim or without.
#[derive(Clone, Debug)]
pub(crate) struct LayerRun {
    /// For handlers inside that have no claim of their own.
    pub(crate) execution: Execution,
    /// The records of this layer and of those around it; none without a claim. A handler or a layer inside that claims one of them
    /// again would wait for itself.
    records: Vec<RecordKey>,
    has_warned: Arc<AtomicBool>,
}

impl LayerRun {
    /// The run of a layer under its claim, inside of another one if there is an `outer` one.
    pub(super) fn claimed(outer: Option<Self>, record: &RecordKey, run: &mut Run, layer: &Shared) -> Self {
        let claimed = Self::observed(outer, record, run, layer);
        if layer.idempotency.keeps_steps() {
            // Which arguments the handlers inside have is not known yet.
            claimed.execution.fill_steps(run.steps());
        }
        claimed
    }

    /// The same where the service only observes, so that no step is recorded.
    pub(super) fn observed(outer: Option<Self>, record: &RecordKey, run: &Run, layer: &Shared) -> Self {
        let mut records = outer.map_or_else(Vec::new, |outer| outer.records);
        records.push(record.clone());
        let execution = Execution::of_layer(&layer.idempotency);
        execution.fill(record, run.claim());
        Self {
            execution,
            records,
            has_warned: layer.has_warned.clone(),
        }
    }

    /// The run of a layer without a claim.
    pub(super) fn unprotected(layer: &Shared) -> Self {
        let execution = Execution::of_layer(&layer.idempotency);
        execution.fill_unprotected();
        Self {
            execution,
            records: Vec::new(),
            has_warned: layer.has_warned.clone(),
        }
    }

    /// Whether the layer, or one around it, has a claim for the request.
    pub(crate) fn has_claim(&self) -> bool {
        !self.records.is_empty()
    }

    /// Whether another layer around this one has a claim too.
    pub(super) fn is_inside_of_another(&self) -> bool {
        self.records.len() > 1
    }

    /// Whether this layer, or one around it, has claimed `record` for the request.
    pub(crate) fn has_claimed(&self, record: &RecordKey) -> bool {
        self.records.contains(record)
    }

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

impl<S, B, R> Service<axum::http::Request<B>> for IdempotencyService<S>
where
    S: Service<Request, Response = axum::http::Response<R>, Error: Display + Send + 'static, Future: Send>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // A replay does not need the inner service.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<B>) -> Self::Future {
        let (mut head, body) = request.map(Body::new).into_parts();
        let (inner, shared) = (self.inner.clone(), self.shared.clone());
        // Inside of a nested router, the address lacks the part that led there. The layer goes by the whole of it.
        let original = head.extensions.get::<OriginalUri>().map(|original| original.0.clone());
        let stripped = original.map(|original| std::mem::replace(&mut head.uri, original));
        let identified = shared.guards(&head).then(|| (shared.identify(&head), head.uri.clone()));
        if let Some(stripped) = stripped {
            head.uri = stripped;
        }
        match identified {
            Some((identified, uri)) => shared.answer(inner, identified, (head, uri), body),
            None => Box::pin(async move { Ok(oneshot(inner, head, body).await?.map(Body::new)) }),
        }
    }
}

async fn oneshot<S: Service<Request>>(mut service: S, head: Parts, body: Body) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(Request::from_parts(head, body)).await
}

/// A request that the layer is for, and its record, if it has a key or needs one.
struct Identified {
    guarded: GuardedRequest<Idempotency, Arc<Operation>>,
    policy: Policy,
    observation: Observation,
    record: Result<Option<RecordKey>, ProblemDetails>,
}

impl Shared {
    /// Whether a request is one of those that the layer is for. A GET that switches protocols never is, nor is CONNECT: what
    /// follows them is no answer.
    fn guards(&self, head: &Parts) -> bool {
        let switches_protocols = match head.method {
            Method::CONNECT => true,
            Method::GET => head.headers.contains_key(UPGRADE),
            _ => false,
        };
        !switches_protocols && (self.when)(head)
    }

    /// Tells which record a request belongs to.
    fn identify(&self, head: &Parts) -> Identified {
        let route = head.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        let name = OperationName::of(&self.operation, &head.method, route, head.uri.path()).of_layer();
        let is_observing = self.idempotency.settings().is_observing();
        let observation = Observation::start(&name, || name.label()).observing(is_observing.then_some(answer_of_idem));
        let guarded = GuardedRequest {
            setup: self.idempotency.clone(),
            operation: self.operation.clone(),
            is_head: head.method == Method::HEAD,
        };
        let policy = guarded.policy();
        let record = observation.span().in_scope(|| self.record(&name, &policy, head));
        Identified {
            guarded,
            policy,
            observation,
            record,
        }
    }

    /// The record of a request; none where it has no key and needs none.
    fn record(
        &self,
        name: &OperationName<'_>,
        policy: &Policy,
        head: &Parts,
    ) -> Result<Option<RecordKey>, ProblemDetails> {
        let settings = self.idempotency.settings();
        let mut lines = head.headers.get_all(policy.header()).iter();
        let key_lines = [lines.next(), lines.next()];
        if key_lines[0].is_none() && !policy.required() {
            return Ok(None);
        }
        let Some(scope) = self.scope.of(head) else {
            tracing::error!(
                method = %head.method,
                path = head.uri.path(),
                "a request to an IdempotencyLayer has no scope; add the layer that finds out who calls outside of \
                 it: a later `.layer(..)` of the router"
            );
            return Err(settings.details(IdempotencyProblem::NotConfigured));
        };
        let caller = Caller {
            scope: &scope,
            is_scope_from_client: false,
            natural_key: None,
            key_lines,
        };
        let record = record_key(settings, name, policy, &caller)?;
        let outer = head.extensions.get::<LayerRun>();
        if let Some(record) = record
            .as_ref()
            .filter(|record| outer.is_some_and(|outer| outer.has_claimed(record)))
        {
            tracing::error!(
                key = %record.shown(),
                "an IdempotencyLayer is inside of another one with the same name and scope, so its request would wait for itself; \
                 leave one of them out, or give it another name"
            );
            return Err(settings.details(IdempotencyProblem::NotConfigured));
        }
        Ok(record)
    }

    /// Answers an identified request. `uri` is the address that the client asked for.
    fn answer<S, R>(
        self: Arc<Self>,
        inner: S,
        identified: Identified,
        (head, uri): (Parts, Uri),
        body: Body,
    ) -> BoxFuture<'static, Result<Response, S::Error>>
    where
        S: Service<Request, Response = axum::http::Response<R>, Error: Display + Send + 'static, Future: Send>,
        S: Clone + Send + 'static,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let span = identified.observation.span();
        let failure = Arc::new(Mutex::new(None));
        let handler = LayerHandler {
            inner,
            head,
            body,
            shared: self.clone(),
            failure: failure.clone(),
        };
        self.run_or_refuse(identified, uri, handler)
            .instrument(span)
            .map(move |answer| {
                let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                failed.map_or_else(|| Ok(with_axum_body(answer)), Err)
            })
            .boxed()
    }
    /// Answers a request by its record, if it has one.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` stores its arguments twice")]
    fn run_or_refuse<S, R>(
        self: Arc<Self>,
        identified: Identified,
        uri: Uri,
        mut handler: LayerHandler<S, S::Error>,
    ) -> impl Future<Output = Answer> + Send
    where
        S: Service<Request, Response = axum::http::Response<R>, Error: Display + Send + 'static, Future: Send>,
        S: Clone + Send + 'static,
        R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        async move {
            let Identified {
                guarded,
                policy,
                mut observation,
                record,
            } = identified;
            let settings = self.idempotency.settings();
            let record = match record {
                Ok(Some(record)) => record,
                Ok(None) => {
                    let answer = guarded.answer_unprotected(handler).await;
                    observation.end(RequestOutcome::Unprotected);
                    return answer;
                }
                Err(refused) => {
                    observation.end(RequestOutcome::from(refused.problem));
                    if settings.is_observing() {
                        return guarded.answer_unprotected(handler).await;
                    }
                    return made(settings.refuse(refused));
                }
            };
            observation.identified(&record, settings.key_label);
            let notice = self.idempotency.memory_notice();
            if notice.is_due() && came_over_a_connection(&uri, &handler.head.headers) {
                notice.write();
            }
            match handler.read_compared(&policy, &uri).await {
                Ok(identity) => guarded.answer(observation, record, identity, handler).await,
                Err(refusal) => {
                    observation.end(RequestOutcome::BodyRefused);
                    if settings.is_observing() {
                        return guarded.answer_unprotected(handler).await;
                    }
                    made(refusal)
                }
            }
        }
    }
}
