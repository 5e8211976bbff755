//! IDEM-18: services in front of services. What idem says in one of them is never final in another.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::{Idempotency, MemoryBackend, idempotent};
use idem_tests::{Answer, App, Order, Service, TENANT, in_time};
use reqwest::Method;
use tower::ServiceExt as _;

/// The service behind, and how its answer is handed on.
#[derive(Clone)]
struct Behind {
    url: String,
    streams: bool,
}

impl Behind {
    /// Sends the request on, and hands on what came back, headers and all.
    async fn ask(self, headers: HeaderMap, body: String) -> Response {
        let mut request = reqwest::Client::new().post(&self.url).body(body);
        for name in ["authorization", "content-type", "idempotency-key"] {
            if let Some(value) = headers.get(name) {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.expect("an answer");
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        if self.streams {
            headers.remove(CONTENT_LENGTH);
            return (status, headers, Body::from_stream(answer.bytes_stream())).into_response();
        }
        (status, headers, answer.bytes().await.expect("a body")).into_response()
    }
}

/// Handlers that hand on, by what is stored.
macro_rules! gateways {
    ($($name:ident: ($($options:tt)*);)*) => {
        $(
            #[idempotent(ttl = "24h", scope = global, $($options)*)]
            async fn $name(Extension(behind): Extension<Behind>, headers: HeaderMap, body: String) -> Response {
                behind.ask(headers, body).await
            }
        )*
    };
}

gateways! {
    stores_final: (store = "final");
    stores_success: (store = "success");
    stores_all: (store = "all");
    refuses: (after_crash = "refuse");
    optional: (required = false, header = "x-edge-key");
}

const GATEWAYS: [&str; 4] = ["/final", "/success", "/all", "/refuses"];

async fn gateway(behind: &Service, path: &str, streams: bool) -> Service {
    let url = format!("http://{}{path}", behind.address);
    let routes = Router::<App>::new()
        .route("/final", post(stores_final))
        .route("/success", post(stores_success))
        .route("/all", post(stores_all))
        .route("/refuses", post(refuses))
        .route("/optional", post(optional))
        .layer(Extension(Behind { url, streams }));
    Service::memory(routes).await
}

fn code(answer: &Answer) -> Option<&str> {
    let code = answer.headers.get("idempotency-code");
    code.map(|code| code.to_str().expect("text"))
}

/// Asks each gateway while the core is at work and after, and returns what they told meanwhile.
async fn ask_while_the_core_is_at_work(core_path: &str, streams: bool, refusal: StatusCode) {
    let core = Service::memory(Router::new()).await;
    let edge = gateway(&core, core_path, streams).await;
    let order = Order::new("o").held();
    let first = tokio::spawn(core.client.order_at(core_path, "k", &order).send());
    core.app.wait_until_started(1).await;
    let ask = |path| edge.client.order_at(path, "k", &order).send();
    for path in GATEWAYS {
        for _ in 0..2 {
            let meanwhile = ask(path).await;
            assert_eq!(
                (meanwhile.status, code(&meanwhile)),
                (refusal, Some("not-final")),
                "{path}"
            );
            assert_eq!(meanwhile.headers["retry-after"], "1");
            assert!(!meanwhile.is_replay() && !meanwhile.says_not_stored(), "{path}");
        }
    }
    core.app.open_gate();
    let first = first.await.expect("no panic");
    for path in GATEWAYS {
        let ran = ask(path).await;
        assert_eq!((ran.status, code(&ran)), (StatusCode::CREATED, None), "{path}");
        assert!(
            !ran.is_replay(),
            "{path}: that the core replayed is not the edge's to say"
        );
        assert_eq!(ran.body, first.body);
        edge.idempotency.drain().await;
        assert!(ask(path).await.is_replay(), "{path}");
    }
    assert_eq!(core.app.executions("o"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_flight_in_the_service_behind_is_not_the_edges_final_answer() {
    in_time(ask_while_the_core_is_at_work("/orders", false, StatusCode::CONFLICT)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_in_the_service_behind_is_not_the_edges_final_answer() {
    in_time(ask_while_the_core_is_at_work(
        "/orders/accepting",
        false,
        StatusCode::ACCEPTED,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_answer_of_the_service_behind_is_not_final_either() {
    in_time(ask_while_the_core_is_at_work("/orders", true, StatusCode::CONFLICT)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_services_in_a_chain_none_keeps_what_the_last_one_says_for_now() {
    in_time(async {
        for (core_path, refusal) in [("/orders", 409), ("/orders/accepting", 202)] {
            let core = Service::memory(Router::new()).await;
            let middle = gateway(&core, core_path, false).await;
            let edge = gateway(&middle, "/final", false).await;
            let order = Order::new("o").held();
            let first = tokio::spawn(core.client.order_at(core_path, "k", &order).send());
            core.app.wait_until_started(1).await;
            let ask = || edge.client.order_at("/all", "k", &order).send();
            let meanwhile = ask().await;
            assert_eq!(
                (meanwhile.status.as_u16(), code(&meanwhile)),
                (refusal, Some("not-final"))
            );
            core.app.open_gate();
            let first = first.await.expect("no panic");
            let ran = ask().await;
            assert_eq!(
                (ran.status, &ran.body, ran.is_replay()),
                (first.status, &first.body, false)
            );
            ask().await.assert_replays(&ran);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_answer_in_the_name_of_idem_is_not_final_either() {
    in_time(async {
        let core = Service::memory(Router::<App>::new().route("/panicking", post(panicking))).await;
        // Another request has the key at the core.
        core.client.order("k", &Order::new("other")).send().await;
        let edge = gateway(&core, "/orders", false).await;
        for path in GATEWAYS {
            let reused = edge.client.order_at(path, "k", &Order::new("o")).send().await;
            assert_eq!(
                (reused.status.as_u16(), code(&reused)),
                (422, Some("not-final")),
                "{path}"
            );
            let again = edge.client.order_at(path, "k", &Order::new("o")).send().await;
            assert!(!again.is_replay(), "{path}");
        }
        let edge = gateway(&core, "/panicking", false).await;
        // Under `refuse`, a 500 leaves open how far the edge itself came, whoever made it.
        for path in GATEWAYS.into_iter().filter(|path| *path != "/refuses") {
            for _ in 0..2 {
                let panicked = edge.client.order_at(path, "k", &Order::new("o")).send().await;
                assert_eq!(
                    (panicked.status.as_u16(), code(&panicked)),
                    (500, Some("not-final")),
                    "{path}"
                );
                assert!(!panicked.is_replay(), "{path}");
            }
        }
    })
    .await;
}

#[idempotent(ttl = "1m", scope = global)]
async fn panicking() -> StatusCode {
    panic!("in a handler, on purpose")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_runs_unprotected_passes_on_that_nothing_is_final() {
    in_time(async {
        let core = Service::memory(Router::new()).await;
        let edge = gateway(&core, "/orders", false).await;
        let order = Order::new("o").held();
        let first = tokio::spawn(core.client.order("k", &order).send());
        core.app.wait_until_started(1).await;
        let meanwhile = edge.client.order_at("/optional", "k", &order).send().await;
        assert_eq!((meanwhile.status.as_u16(), code(&meanwhile)), (409, Some("not-final")));
        core.app.open_gate();
        first.await.expect("no panic");
        let replayed = edge.client.order_at("/optional", "k", &order).send().await;
        assert_eq!((replayed.status.as_u16(), code(&replayed)), (201, None));
        assert!(!replayed.is_replay(), "this service has replayed nothing");
    })
    .await;
}

/// The service behind, in this process.
#[derive(Clone)]
struct Inner(Router);

#[idempotent(ttl = "24h", scope = global, store = "all")]
async fn outer(Extension(inner): Extension<Inner>, request: Request) -> Response {
    inner.0.oneshot(request).await.unwrap_or_else(|never| match never {})
}

#[idempotent(ttl = "24h", scope = global, header = "x-inner-key")]
async fn inner() -> &'static str {
    "done"
}

async fn without_headers(mut response: Response) -> Response {
    response.headers_mut().clear();
    response
}

#[tokio::test]
async fn an_answer_whose_headers_were_lost_is_known_by_its_extension() {
    let inner = Router::new()
        .route("/", post(inner))
        .layer(Idempotency::new(MemoryBackend::new()))
        .layer(map_response(without_headers));
    let routes = Router::<App>::new()
        .route("/", post(outer))
        .layer(Extension(Inner(inner)));
    let service = Service::memory(routes).await;
    let call = || service.client.call(Method::POST, "/").tenant(TENANT).key("k");
    for _ in 0..2 {
        let refused = call().send().await;
        assert_eq!((refused.status.as_u16(), code(&refused)), (400, Some("not-final")));
    }
}
