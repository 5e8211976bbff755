//! The service that cases are played on: a handler that answers what its case says, under every option and setting.
//!
//! Owns the routes and what runner and handlers share. A request belongs to the case that its token names, and so do its
//! scope and its counts: cases do not see each other.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use idem_axum::{Backend, Idempotency, IdempotencyProblem, ProblemDetails, RedisBackend, Verdict, idempotent};
use idem_tests::{App, PATIENCE, RedisServer, Service};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::forms::{Form, bare, layered};

/// What a handler answers.
#[derive(Clone, Debug)]
pub(super) struct Made {
    status: u16,
    lines: Vec<(&'static str, Vec<u8>)>,
    content: Content,
    verdict: Option<Verdict>,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Which run of its case it is.
    Run,
    Whole(Vec<u8>),
    /// In pieces that are not there at once.
    Pieces(&'static [&'static str]),
    /// In pieces that are.
    AtOnce(&'static [&'static str]),
    /// Fails after its beginning.
    Failing,
    WithTrailers,
    /// None: the handler panics.
    Panic,
}

impl Default for Made {
    fn default() -> Self {
        made(201)
    }
}

pub(super) fn made(status: u16) -> Made {
    Made {
        status,
        lines: Vec::new(),
        content: Content::Run,
        verdict: None,
    }
}

impl Made {
    pub(super) fn line(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.lines.push((name, value.into()));
        self
    }

    pub(super) fn whole(self, body: impl Into<Vec<u8>>) -> Self {
        self.of(Content::Whole(body.into()))
    }

    pub(super) fn of(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    pub(super) fn verdict(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    fn respond(&self, run: u32) -> Response {
        let mut response = Response::new(match self.content.clone() {
            Content::Run => format!("run {run}").into(),
            Content::Whole(body) => body.into(),
            Content::Pieces(pieces) => Body::from_stream(stream::iter(pieces).then(|piece| async move {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(*piece)
            })),
            Content::AtOnce(pieces) => Body::from_stream(stream::iter(pieces.iter().copied().map(Ok::<_, Infallible>))),
            Content::Failing => {
                let pieces = [Ok("half"), Err(std::io::Error::other("on purpose"))];
                Body::from_stream(stream::iter(pieces))
            }
            Content::WithTrailers => {
                let trailers =
                    HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);
                Body::new(Body::from("data").with_trailers(async { Some(Ok(trailers)) }))
            }
            Content::Panic => panic!("in a handler, on purpose"),
        });
        *response.status_mut() = StatusCode::from_u16(self.status).expect("a status");
        for (name, value) in &self.lines {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            response.headers_mut().append(*name, value);
        }
        if let Some(verdict) = self.verdict {
            response.extensions_mut().insert(verdict);
        }
        response
    }
}

/// What the handlers of one case share with its runner.
#[derive(Debug)]
pub(super) struct Scene {
    made: Vec<Made>,
    runs: watch::Sender<u32>,
    gate: watch::Sender<bool>,
}

impl Scene {
    pub(super) fn runs(&self) -> u32 {
        *self.runs.borrow()
    }

    pub(super) async fn until_runs(&self, count: u32) {
        let mut runs = self.runs.subscribe();
        runs.wait_for(|runs| *runs >= count).await.expect("the sender lives");
    }

    pub(super) fn open(&self) {
        self.gate.send_replace(true);
    }

    pub(super) async fn answer(&self) -> Response {
        let mut run = 0;
        self.runs.send_modify(|runs| {
            *runs += 1;
            run = *runs;
        });
        let mut gate = self.gate.subscribe();
        gate.wait_for(|open| *open).await.expect("the sender lives");
        let index = usize::try_from(run - 1).expect("it is small");
        let made = self.made.get(index).or(self.made.last()).expect("a case has one");
        made.respond(run)
    }
}

/// All scenes, by the names of their cases.
#[derive(Clone, Debug, Default)]
pub(super) struct Stage(Arc<Mutex<HashMap<String, Arc<Scene>>>>);

impl Stage {
    /// The scene of one case, whose handlers are held until the gate opens or not at all.
    pub(super) fn set(&self, case: &str, made: Vec<Made>, held: bool) -> Arc<Scene> {
        let scene = Arc::new(Scene {
            made,
            runs: watch::Sender::new(0),
            gate: watch::Sender::new(!held),
        });
        let mut scenes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        scenes.insert(case.to_owned(), scene.clone());
        scene
    }

    fn scene(&self, case: &str) -> Option<Arc<Scene>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(case).cloned()
    }
}

/// Who calls: the case, a tenant of it, and what else scopes are made of.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) scene: Arc<Scene>,
    pub(super) token: String,
    pub(super) a: String,
    b: String,
}

impl Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.token)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let token = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let case = token.and_then(|token| Some((token, token.split_once('|')?.0)));
        let (token, case) = case.ok_or(StatusCode::UNAUTHORIZED)?;
        let scene = parts.extensions.get::<Stage>().and_then(|stage| stage.scene(case));
        Ok(Self {
            scene: scene.ok_or(StatusCode::UNAUTHORIZED)?,
            token: token.to_owned(),
            a: text("x-a").unwrap_or_default().to_owned(),
            b: text("x-b").unwrap_or_default().to_owned(),
        })
    }
}

/// The same handler under many options. What an option names has to be written where the option is.
macro_rules! handlers {
    (|$caller:ident, $body:ident| $($name:ident: ($($options:tt)*) $extracted:ty;)*) => {
        $(
            #[idempotent($($options)*)]
            async fn $name($caller: Caller, $body: $extracted) -> Response {
                drop($body);
                $caller.scene.answer().await
            }
        )*
    };
}

handlers! { |caller, body|
    plain: (ttl = "1m", scope = caller) Bytes;
    json: (ttl = "1m", scope = caller) Json<Value>;
    text: (ttl = "1m", scope = caller) String;
    other_header: (ttl = "1m", scope = caller, header = "X-Request-Key") Bytes;
    optional: (ttl = "1m", scope = caller, required = false) Bytes;
    natural: (ttl = "1m", scope = caller, key = body) String;
    accepting: (ttl = "1m", scope = caller, in_flight = "accept") Bytes;
    waiting: (ttl = "1m", scope = caller, in_flight = "wait", wait = "30s") Bytes;
    impatient: (ttl = "1m", scope = caller, in_flight = "wait", wait = "100ms") Bytes;
    refusing: (ttl = "1m", scope = caller, after_crash = "refuse", lease = "3s", in_flight = "wait", wait = "30s") Bytes;
    refusing_all: (ttl = "1m", scope = caller, after_crash = "refuse", store = "all") Bytes;
    successes: (ttl = "1m", scope = caller, store = "success") Bytes;
    everything: (ttl = "1m", scope = caller, store = "all") Bytes;
    sixteen: (ttl = "1m", scope = caller, max_response = "16B") Bytes;
    uncompared: (ttl = "1m", scope = caller, name = "uncompared", fingerprint = "none") Bytes;
    by_value: (ttl = "1m", scope = caller, fingerprint = body["order"]) Json<Value>;
    by_parts: (ttl = "1m", scope = caller, fingerprint = (caller.a, caller.b)) Bytes;
    shared: (ttl = "1m", scope = caller, name = "shared") Bytes;
    deployed: (ttl = "1m", scope = caller, name = "shared", fingerprint = caller.a) Bytes;
    global: (ttl = "1m", scope = global) Bytes;
    in_pair: (ttl = "1m", scope = (caller, caller.a, caller.b)) Bytes;
    nested: (ttl = "1m", scope = (caller, (caller.a, caller.b))) Bytes;
    by_a: (ttl = "1m", scope = caller.a) Bytes;
    brief: (ttl = "500ms", scope = caller) Bytes;
    brief_unknown: (ttl = "500ms", scope = caller, after_crash = "refuse", lease = "3s", in_flight = "wait", wait = "30s") Bytes;
    unprotected: (ttl = "1m", scope = caller, on_outage = "run") Bytes;
}

pub(super) fn is_uuid(key: &str) -> Result<(), &'static str> {
    let is_digit = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    if key.len() == 36 && key.bytes().enumerate().all(is_digit) {
        return Ok(());
    }
    Err("The key is no UUID.")
}

#[allow(clippy::needless_pass_by_value, reason = "as the setting wants it")]
fn shape(details: ProblemDetails) -> Response {
    Json(json!({ "errors": [{ "code": details.problem.code() }] })).into_response()
}

/// A route whose handler is guarded in either form.
macro_rules! guarded {
    ($form:ident, $idempotency:expr, $method:ident($name:ident)) => {
        match $form {
            Form::Attribute => $method($name).layer($idempotency.clone()),
            Form::Layer => layered($method(bare), &$idempotency, stringify!($name)),
        }
    };
}

fn routes(form: Form, idempotency: &Idempotency, down: &Idempotency, stage: Stage) -> Router<App> {
    let settings = idempotency.clone();
    let unstored = [
        HeaderName::from_static("set-cookie"),
        HeaderName::from_static("x-trace"),
    ];
    let documented = settings.clone().with_documentation("https://example.com/keys");
    Router::new()
        .route("/plain", guarded!(form, settings, any(plain)))
        .route("/got", guarded!(form, settings, get(plain)))
        .route("/json", guarded!(form, settings, post(json)))
        .route("/text", guarded!(form, settings, post(text)))
        .route("/items/{item}", guarded!(form, settings, any(plain)))
        .nest(
            "/v2",
            Router::new().route("/plain", guarded!(form, settings, post(plain))),
        )
        .route("/other-header", guarded!(form, settings, post(other_header)))
        .route("/optional", guarded!(form, settings, post(optional)))
        .route("/natural", guarded!(form, settings, post(natural)))
        .route("/accepting", guarded!(form, settings, post(accepting)))
        .route("/waiting", guarded!(form, settings, post(waiting)))
        .route("/impatient", guarded!(form, settings, post(impatient)))
        .route("/refusing", guarded!(form, settings, post(refusing)))
        .route("/refusing/everything", guarded!(form, settings, post(refusing_all)))
        .route("/successes", guarded!(form, settings, post(successes)))
        .route("/everything", guarded!(form, settings, post(everything)))
        .route("/sixteen", guarded!(form, settings, post(sixteen)))
        .route("/uncompared", guarded!(form, settings, any(uncompared)))
        .route("/by-value", guarded!(form, settings, post(by_value)))
        .route("/by-parts", guarded!(form, settings, post(by_parts)))
        .route("/shared", guarded!(form, settings, any(shared)))
        .route("/shared/again", guarded!(form, settings, post(shared)))
        .route("/deployed", guarded!(form, settings, post(deployed)))
        .route("/global", guarded!(form, settings, post(global)))
        .route("/in-pair", guarded!(form, settings, post(in_pair)))
        .route("/nested", guarded!(form, settings, post(nested)))
        .route("/by-a", guarded!(form, settings, post(by_a)))
        .route("/brief", guarded!(form, settings, post(brief)))
        .route("/brief-unknown", guarded!(form, settings, post(brief_unknown)))
        .route(
            "/strict",
            guarded!(form, settings.clone().with_strict_keys(), post(plain)),
        )
        .route(
            "/uuid",
            guarded!(form, settings.clone().with_key_format(is_uuid), post(plain)),
        )
        .route(
            "/unstored",
            guarded!(form, settings.clone().with_unstored_headers(unstored), post(plain)),
        )
        .route("/documented", guarded!(form, documented, post(plain)))
        .route(
            "/shaped",
            guarded!(form, documented.clone().with_problem_response(shape), post(plain)),
        )
        .route(
            "/limited",
            guarded!(form, settings, post(plain)).layer(DefaultBodyLimit::max(1_000)),
        )
        .route("/down", guarded!(form, down, post(plain)))
        .route("/down/unprotected", guarded!(form, down, post(unprotected)))
        .layer(Extension(stage))
}

/// Tells clients what only layers see. A verdict is nothing that they do.
async fn name_the_problem(response: Response) -> Response {
    assert!(response.extensions().get::<Verdict>().is_none(), "it is for idem alone");
    let problem = response.extensions().get::<IdempotencyProblem>().copied();
    let name = problem.map(|problem| [("x-problem", problem.code())]);
    (name.map(AppendHeaders), response).into_response()
}

/// The service on `backend`.
pub(super) async fn serve(form: Form, backend: impl Backend, redis: Option<RedisServer>, stage: Stage) -> Service {
    let mut killed = RedisServer::start().await;
    let down = RedisBackend::connect(&killed.url()).await.expect("the server answers");
    killed.kill();
    // How long a call may take is nothing that cases are about.
    let idempotency = Idempotency::new(backend).with_deadline(PATIENCE);
    let routes = routes(form, &idempotency, &Idempotency::new(down), stage.clone());
    let mut service = Service::wrapped(idempotency, routes, |router| {
        let unlayered = Router::new().route("/unlayered", post(plain)).layer(Extension(stage));
        router.merge(unlayered).layer(map_response(name_the_problem))
    })
    .await;
    service.redis = redis;
    service
}
