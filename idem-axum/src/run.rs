//! From a guarded request to its response: what the expansion of `#[idempotent]` calls.
//!
//! Owns what an attribute's request is identified by, and who reads what is left of its body, before `idem-http` claims its
//! record. Everything but the first function is compiled once, however many handlers there are.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, RawPathParams};
use axum::http::Method;
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use idem_core::{Fingerprint, HandlerResult, RecordKey, Run};
use idem_http::answer::AnswerRules;
use idem_http::fingerprint::ComparedPath;
use idem_http::guarded::observed_result;
use idem_http::identity::{Caller, record_key};
use idem_http::observe::answer_of_idem;
use idem_http::{
    Compared, GuardedRequest, Handler, IdempotencyProblem, Observation, Operation, OperationName, Policy,
    ProblemDetails, RequestIdentity, RequestOutcome, ResponseBody, Settings, StoredAnswers, Verdict, fingerprint,
};
use tracing::Instrument as _;

use crate::Idempotency;
use crate::bounds::HandlerAnswer;
use crate::captured::CapturedRequest;
use crate::guarded::{Guard, GuardParts};
use crate::identity::{Identity, SerdeForm};
use crate::steps::shaped_step_errors;
#[cfg(feature = "transaction")]
use crate::transaction::JointClaim;

/// Runs `handler` once per record, or answers in its place.
///
/// A guard of a direct call lets the handler run unguarded.
pub fn run<I, H>(guard: Guard, operation: &'static Operation, identity: I, handler: H) -> BoxFuture<'static, Response>
where
    I: Into<Identity>,
    H: Future<Output = Response> + Send + 'static,
{
    run_boxed(guard, operation, identity.into(), handler.boxed())
}

/// Compiled once: the only part of a handler that it knows is a boxed future.
fn run_boxed(
    guard: Guard,
    operation: &'static Operation,
    identity: Identity,
    handler: BoxFuture<'static, Response>,
) -> BoxFuture<'static, Response> {
    match guard.0 {
        Some(parts) => guarded(parts, operation, identity, handler),
        None => handler,
    }
}

/// Spanned on the handler's return type, where a missing implementation is reported.
pub fn into_response<R: HandlerAnswer>(answer: R) -> Response {
    answer.into_response()
}

/// Says what type an async block has, in a branch that is never taken.
#[must_use]
pub fn never<T>() -> T {
    unreachable!("only its type is of use")
}

/// An answer of idem's, with a body of axum's.
pub(crate) fn with_axum_body(answer: Response<ResponseBody<Body>>) -> Response {
    answer.map(|body| body.into_own().unwrap_or_else(Body::new))
}

/// What is known of a request before its record is claimed.
enum Identified {
    /// It is refused.
    Refused(RequestOutcome, Response),
    /// It would be refused, and runs without a claim, because the service only observes.
    RefusalObserved(RequestOutcome),
    /// It runs without a claim.
    Unprotected,
    /// All that is compared has been read.
    Whole(RecordKey, RequestIdentity),
    /// The rest of its body is compared too.
    BodyUnread(RecordKey),
}

/// A handler's future, and the request that it answers.
struct AxumHandler {
    request: Arc<CapturedRequest>,
    handler: BoxFuture<'static, Response>,
    settings: Arc<Settings>,
}

impl Handler<Body> for AxumHandler {
    fn run(
        self,
        record: &RecordKey,
        run: &mut Run,
        mut rules: AnswerRules,
    ) -> impl Future<Output = HandlerResult<Response<ResponseBody<Body>>>> + Send + 'static + use<> {
        let execution = &self.request.execution;
        execution.fill(record, run.claim());
        let steps = execution.wants_steps().then(|| run.steps());
        let mut handler = self.handler;
        if let Some(steps) = &steps {
            execution.fill_steps(steps.clone());
            handler = shaped_step_errors(handler, self.settings);
        }
        rules.passes_verdict = self.request.layer.is_some();
        #[cfg(feature = "transaction")]
        let running = {
            let claimed = JointClaim {
                record: record.clone(),
                claim: run.claim().clone(),
                steps,
                rules,
            };
            self.request.transaction.clone().join(handler, claimed)
        };
        #[cfg(not(feature = "transaction"))]
        let running = handler.map(move |response| idem_http::answer::finish(response, &rules));
        running
    }

    fn run_observed(
        self,
        record: &RecordKey,
        run: &mut Run,
        rules: AnswerRules,
        deadline: Duration,
    ) -> impl Future<Output = HandlerResult<Response<ResponseBody<Body>>>> + Send + 'static + use<> {
        self.request.execution.fill(record, run.claim());
        self.run_apart(rules.stored, deadline)
            .map(move |answer| observed_result(answer, &rules))
    }

    fn run_unprotected(
        self,
        policy: &Policy,
        deadline: Duration,
    ) -> impl Future<Output = Response<ResponseBody<Body>>> + Send + 'static + use<> {
        self.request.execution.fill_unprotected();
        self.run_apart(policy.store(), deadline).map(|mut answer| {
            Verdict::take_off(answer.extensions_mut());
            answer
        })
    }
}

impl AxumHandler {
    /// Runs with a transaction, if there is one, that is not tied to a record. The answer has its verdict still.
    #[cfg_attr(
        not(feature = "transaction"),
        expect(unused_variables, reason = "for the end of a transaction")
    )]
    fn run_apart(
        self,
        stored: StoredAnswers,
        deadline: Duration,
    ) -> impl Future<Output = Response<ResponseBody<Body>>> + Send + 'static + use<> {
        let mut handler = self.handler;
        if self.request.execution.wants_steps() {
            handler = shaped_step_errors(handler, self.settings);
        }
        let handler = handler.map(idem_http::markers::taken_off);
        #[cfg(feature = "transaction")]
        let running = {
            let transaction = self.request.transaction.clone();
            transaction.run_unprotected(handler, stored, deadline)
        };
        #[cfg(not(feature = "transaction"))]
        let running = handler.map(|answer| answer.map(ResponseBody::own));
        running
    }
}

/// Identifies a request, and answers it.
///
/// Each case has a boxed future of its own, so that a request pays only for what its own case stores.
fn guarded(
    parts: GuardParts,
    operation: &'static Operation,
    identity: Identity,
    handler: BoxFuture<'static, Response>,
) -> BoxFuture<'static, Response> {
    let GuardParts { idempotency, request } = parts;
    let route = request.matched_path.as_ref().map(MatchedPath::as_str);
    let name = OperationName::of(operation, &request.method, route, request.uri.path());
    let is_observing = idempotency.settings().is_observing();
    let mut observation = Observation::start(&name, || name.label()).observing(is_observing.then_some(answer_of_idem));
    let span = observation.span();
    let guarded = GuardedRequest {
        setup: idempotency,
        operation,
        is_head: request.method == Method::HEAD,
    };
    let identified = span.in_scope(|| identify(&guarded, &request, &mut observation, &name, identity));
    let axum_handler = AxumHandler {
        request: request.clone(),
        handler,
        settings: guarded.setup.settings().clone(),
    };
    match identified {
        Identified::Whole(record, identity) => guarded
            .answer(observation, record, identity, axum_handler)
            .map(with_axum_body)
            .instrument(span)
            .boxed(),
        Identified::BodyUnread(record) => {
            let read = answer_unread(guarded, observation, record, axum_handler);
            read.instrument(span).boxed()
        }
        Identified::RefusalObserved(outcome) => {
            request.body.leave_to_argument();
            observation.end(outcome);
            let unprotected = guarded.answer_unprotected(axum_handler);
            unprotected.map(with_axum_body).instrument(span).boxed()
        }
        Identified::Unprotected => {
            request.body.leave_to_argument();
            let unprotected = async move {
                let answer = guarded.answer_unprotected(axum_handler).await;
                observation.end(RequestOutcome::Unprotected);
                with_axum_body(answer)
            };
            unprotected.instrument(span).boxed()
        }
        Identified::Refused(outcome, refusal) => {
            observation.end(outcome);
            ready(refusal).boxed()
        }
    }
}

/// Reads the rest of a request's body, and answers it.
#[expect(clippy::manual_async_fn, reason = "an `async fn` stores its arguments twice")]
fn answer_unread(
    guarded: GuardedRequest<Idempotency, &'static Operation>,
    observation: Observation,
    record: RecordKey,
    handler: AxumHandler,
) -> impl Future<Output = Response> + Send {
    async move {
        let body = &handler.request.body;
        let unread = match body.read_rest().await {
            Ok(identity) => {
                let answer = guarded.answer(observation, record, identity, handler);
                return with_axum_body(answer.await);
            }
            Err(unread) => unread,
        };
        observation.end(RequestOutcome::BodyRefused);
        if guarded.setup.settings().is_observing() {
            body.give_back(unread);
            return with_axum_body(guarded.answer_unprotected(handler).await);
        }
        unread.into_response().await
    }
}

/// Tells which record a request belongs to, and what tells it from another one under its key.
fn identify(
    guarded: &GuardedRequest<Idempotency, &'static Operation>,
    request: &CapturedRequest,
    observation: &mut Observation,
    name: &OperationName<'_>,
    identity: Identity,
) -> Identified {
    let settings = guarded.setup.settings();
    if let Some(refusal) = unfit_arguments(guarded, request) {
        if settings.is_observing() {
            return Identified::RefusalObserved(RequestOutcome::NotConfigured);
        }
        return Identified::Refused(RequestOutcome::NotConfigured, refusal);
    }
    let policy = guarded.policy();
    let refuse = |details: ProblemDetails| {
        let outcome = RequestOutcome::from(details.problem);
        if settings.is_observing() {
            return Identified::RefusalObserved(outcome);
        }
        Identified::Refused(outcome, settings.refuse(details).map(Body::new))
    };
    let caller = Caller {
        scope: &identity.scope,
        // A scope is made of what the client sent where the last argument, which makes it, has read the body.
        is_scope_from_client: request.is_scoped_by_argument && request.body.was_read_by_argument(),
        natural_key: identity.key.as_ref(),
        key_lines: request.key_lines.named(policy.header()),
    };
    let record = match record_key(settings, name, &policy, &caller) {
        Ok(Some(record)) if request.layer.as_ref().is_some_and(|layer| layer.has_claimed(&record)) => {
            tracing::error!(
                key = %record.shown(),
                "an #[idempotent] handler has the same name and scope as the IdempotencyLayer around it, so its request would wait \
                 for itself; give the layer another name"
            );
            return refuse(settings.details(IdempotencyProblem::NotConfigured));
        }
        Ok(Some(record)) => record,
        Ok(None) => return Identified::Unprotected,
        Err(refused) => return refuse(refused),
    };
    observation.identified(&record, settings.key_label);
    if request.came_over_a_connection {
        guarded.setup.memory_notice().write();
    }
    match compared(request, settings, &policy, identity.compared) {
        Ok(Some(identity)) => Identified::Whole(record, identity),
        Ok(None) => Identified::BodyUnread(record),
        Err(refused) => refuse(refused),
    }
}

/// The answer to a handler that takes an argument which its engine cannot give.
fn unfit_arguments(
    guarded: &GuardedRequest<Idempotency, &'static Operation>,
    request: &CapturedRequest,
) -> Option<Response> {
    if request.execution.wants_steps() && !guarded.setup.keeps_steps() {
        guarded.setup.note_lack_of_steps();
        let refusal = guarded.setup.settings().problem(IdempotencyProblem::NotConfigured);
        return Some(refusal.map(Body::new));
    }
    #[cfg(feature = "transaction")]
    if let Some(refusal) = request.transaction.guard(&guarded.setup) {
        return Some(refusal);
    }
    None
}

/// What tells this request from another one under its key; `None` where some of its body is still to be read.
fn compared(
    request: &CapturedRequest,
    settings: &Settings,
    policy: &Policy,
    value: Option<SerdeForm>,
) -> Result<Option<RequestIdentity>, ProblemDetails> {
    let CapturedRequest {
        method,
        uri,
        path_parameters,
        body,
        ..
    } = request;
    let fingerprint = match (value, policy.fingerprint()) {
        (None, Compared::Nothing) => Fingerprint::NONE,
        (None, _) => return Ok(body.compared()),
        (Some(SerdeForm(Ok(value))), _) => {
            let parameters = || path_parameters.iter().flat_map(RawPathParams::iter);
            let mut values = parameters().map(|(_, value)| value);
            let path = match path_parameters {
                Some(_) => ComparedPath::Parameters(parameters().count(), &mut values),
                None => ComparedPath::Whole,
            };
            fingerprint::of_value(method, uri, path, value)
        }
        (Some(SerdeForm(Err(error))), _) => {
            // Its text is the application's and may have line breaks, so it is logged as a quotation.
            tracing::error!(
                error = ?error.to_string(),
                "the `fingerprint` of an #[idempotent] handler has no serde form"
            );
            return Err(settings.details(IdempotencyProblem::NotConfigured));
        }
    };
    body.leave_to_argument();
    Ok(Some(RequestIdentity {
        fingerprint,
        is_incomplete: false,
    }))
}
