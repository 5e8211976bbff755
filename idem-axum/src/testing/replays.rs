//! Sends one request several times.
//!
//! Owns what is sent and when; what the answers say is [`judge`](super::judge)'s.

use std::future::poll_fn;
use std::panic::Location;

use axum::BoxError;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, Request};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::BodyExt as _;
use tower_service::Service;

use super::answer::Answer;
use super::judge::Answers;
use super::report::{Finding, ReplayReport};

/// How many requests are sent at once where nothing is set.
const AT_ONCE: usize = 4;

/// Sends `request` to `app` four times at once and once more after that, and returns the handler's answer.
///
/// `app` is a [`Router`](axum::Router) or any other service that can be cloned, such as one that spreads requests over two
/// routers with a layer each, as two processes would have them. The request has its idempotency key, or what its natural
/// key is made of, and no test has used it before with the same backend.
///
/// What has to hold: the handler ran once; the request that was sent last is a replay; each replay has the status,
/// the header lines and the body bytes of the handler's answer. Of those sent at once, each that did not run is a replay,
/// or was refused as in flight (409), or accepted (202), as the handler's `in_flight` says. Not compared are
/// `Idempotent-Replayed`, `Date`, and the headers of the connection (`Connection` and what it names, `Keep-Alive`,
/// `Proxy-Connection`, `TE`, `Trailer`, `Transfer-Encoding`, `Upgrade`); [`ReplayTest`] leaves out more, such as a request
/// id of an outer layer.
///
/// How often the handler ran is told by the answers that are neither replays nor idem's own, so that it needs no counter.
/// Idem's own answers are known by their header `Idempotency-Code`, which a format of your own leaves there.
///
/// The handler runs, with whatever it does: give it a database of the test's own.
///
/// # Panics
///
/// When that does not hold, with the [`ReplayReport`] as the message.
///
/// ```
/// use axum::http::Request;
/// use axum::{Router, routing::post};
/// use idem_axum::testing::assert_replays;
/// use idem_axum::{Idempotency, MemoryBackend, idempotent};
///
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn place_order(item: String) -> String {
///     format!("{item} is on its way")
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), axum::http::Error> {
/// let app = Router::new()
///     .route("/orders", post(place_order))
///     .layer(Idempotency::new(MemoryBackend::new()));
///
/// let request = Request::post("/orders").header("Idempotency-Key", "order-1").body("an umbrella")?;
/// let answer = assert_replays(&app, request).await;
///
/// assert_eq!(answer.body(), "an umbrella is on its way");
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn assert_replays<S, R, B>(app: &S, request: Request<R>) -> impl Future<Output = Response<Bytes>> + use<S, R, B>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + Clone,
    R: Into<Body>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let (app, caller) = (app.clone(), Location::caller());
    async move {
        match ReplayTest::new(request).run(&app).await {
            Ok(first) => first,
            #[expect(clippy::panic, reason = "it is an assertion")]
            Err(report) => panic!("{report}\nat {caller}"),
        }
    }
}

/// The test behind [`assert_replays`], with settings, and with its report as a value.
///
/// ```
/// use axum::http::{HeaderName, Request};
/// use axum::{Router, routing::post};
/// use idem_axum::testing::{Finding, ReplayTest};
/// # use idem_axum::{Idempotency, MemoryBackend};
///
/// async fn place_order() {} // the attribute is missing
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), axum::http::Error> {
/// # let idempotency = Idempotency::new(MemoryBackend::new());
/// let app: Router = Router::new().route("/orders", post(place_order)).layer(idempotency);
///
/// let request = Request::post("/orders").header("Idempotency-Key", "order-1").body(())?;
/// let test = ReplayTest::new(request)
///     .with_requests_at_once(8)
///     .with_varying_header(HeaderName::from_static("x-request-id"));
///
/// let report = test.run(&app).await.expect_err("it runs each time");
/// assert!(matches!(report.findings(), [Finding::Runs { times: 9, .. }]), "{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is sent until it is run"]
pub struct ReplayTest {
    head: Parts,
    body: Body,
    at_once: usize,
    varying: Vec<HeaderName>,
}

impl ReplayTest {
    /// Four of `request` at once, and one more.
    pub fn new(request: Request<impl Into<Body>>) -> Self {
        let (head, body) = request.into_parts();
        Self {
            head,
            body: body.into(),
            at_once: AT_ONCE,
            varying: Vec::new(),
        }
    }

    /// Sets how many are sent at once; 0 is taken as 1.
    pub fn with_requests_at_once(mut self, requests: usize) -> Self {
        self.at_once = requests.max(1);
        self
    }

    /// Leaves a header out that each answer has its own of, as one that a layer around the handlers sets, or that
    /// [`Idempotency::with_unstored_headers`](crate::Idempotency::with_unstored_headers) names.
    pub fn with_varying_header(mut self, name: HeaderName) -> Self {
        self.varying.push(name);
        self
    }

    /// Sends the requests to `app`, and returns the handler's answer.
    ///
    /// # Errors
    ///
    /// What [`assert_replays`] panics with.
    pub async fn run<S, B>(self, app: &S) -> Result<Response<Bytes>, ReplayReport>
    where
        S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + Clone,
        B: http_body::Body<Error: Into<BoxError>>,
    {
        let (findings, first) = match self.send(app).await {
            Ok(answers) => answers.judge(),
            Err(cause) => {
                let cause = cause.to_string();
                (vec![Finding::NoAnswer { cause }], None)
            }
        };
        match first {
            Some(first) if findings.is_empty() => Ok(first.into_response()),
            _ => Err(ReplayReport::new(findings)),
        }
    }

    async fn send<S, B>(self, app: &S) -> Result<Answers, BoxError>
    where
        S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + Clone,
        B: http_body::Body<Error: Into<BoxError>>,
    {
        let body = self.body.collect().await?.to_bytes();
        let request = || Request::from_parts(self.head.clone(), Body::from(body.clone()));
        let requests = (0..self.at_once).map(|_| answer(app.clone(), request()));
        let at_once: Result<_, BoxError> = join_all(requests).await.into_iter().collect();
        Ok(Answers {
            at_once: at_once?,
            after: answer(app.clone(), request()).await?,
            varying: self.varying,
        })
    }
}

/// One request's whole answer.
async fn answer<S, B>(mut app: S, request: Request<Body>) -> Result<Answer, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    poll_fn(|context| app.poll_ready(context)).await.map_err(Into::into)?;
    let response = app.call(request).await.map_err(Into::into)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok(Answer { head, body })
}
