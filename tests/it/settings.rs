//! What an application sets once: keys, headers and problems as it wants them.

use axum::http::header::{LINK, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderName, StatusCode};
use axum::middleware::map_response;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Idempotency, IdempotencyProblem, MemoryBackend, ProblemDetails, idempotent};
use idem_tests::{App, Order, Service};
use reqwest::Method;
use serde_json::json;

#[idempotent(ttl = "1m", scope = global)]
async fn with_cookies() -> impl IntoResponse {
    let lines = [
        (SET_COOKIE, "a=1"),
        (SET_COOKIE, "b=2"),
        (HeaderName::from_static("x-trace"), "1"),
        (HeaderName::from_static("x-kept"), "1"),
    ];
    (AppendHeaders(lines), "cookies")
}

async fn service(set_up: impl FnOnce(Idempotency) -> Idempotency) -> Service {
    let idempotency = set_up(Idempotency::new(MemoryBackend::new()));
    let routes = Router::new().route("/cookies", post(with_cookies));
    Service::wrapped(idempotency, routes, |router| router).await
}

#[tokio::test]
async fn strictly_a_bare_key_is_refused_and_a_quoted_one_is_not() {
    let service = service(Idempotency::with_strict_keys).await;
    let order = Order::new("o");
    let refused = service.client.order("k", &order).send().await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.problem(), "key-invalid");
    assert_eq!(service.app.executions("o"), 0);
    let first = service.client.order("\"k\"", &order).send().await;
    let retry = service.client.order("\"k\";a", &order).send().await;
    assert_eq!(first.status, StatusCode::CREATED);
    retry.assert_replays(&first);
}

#[tokio::test]
async fn a_key_of_another_format_is_refused_in_the_words_of_the_service() {
    let words = |key: &str| match key {
        "good" => Ok(()),
        "silent" => Err(String::new()),
        other => Err(format!("`{other}` is not good.")),
    };
    let service = service(|idempotency| idempotency.with_key_format(words)).await;
    let order = Order::new("o");
    for (key, detail) in [
        ("bad", "`bad` is not good."),
        ("\"bad\"", "`bad` is not good."),
        ("silent", "The idempotency key is not well-formed."),
    ] {
        let refused = service.client.order(key, &order).send().await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.problem(), "key-invalid");
        assert_eq!(refused.json()["detail"], detail);
    }
    assert_eq!(service.app.executions("o"), 0);
    let first = service.client.order("good", &order).send().await;
    assert_eq!(first.status, StatusCode::CREATED);
    // A key that may be left out is checked where it is there.
    let optional = || service.client.call(Method::POST, "/orders/optional").json(&order);
    assert_eq!(
        optional().header("x-request-key", b"bad").send().await.problem(),
        "key-invalid"
    );
    assert_eq!(optional().send().await.status, StatusCode::CREATED);
}

/// It is the handler's own, made of what it has taken.
#[tokio::test]
async fn a_natural_key_is_of_no_format() {
    let service = service(|idempotency| {
        let idempotency = idempotency.with_key_format(|_: &str| Err("never"));
        idempotency.with_strict_keys()
    })
    .await;
    let call = || {
        service
            .client
            .call(Method::POST, "/orders/natural")
            .json(&Order::new("o"))
    };
    let first = call().send().await;
    assert_eq!(first.status, StatusCode::CREATED);
    call().send().await.assert_replays(&first);
}

#[tokio::test]
async fn an_unstored_header_is_in_the_first_answer_and_in_no_replay() {
    let service =
        service(|idempotency| idempotency.with_unstored_headers([SET_COOKIE, HeaderName::from_static("x-trace")]))
            .await;
    let call = || service.client.call(Method::POST, "/cookies").key("k");
    let mut first = call().send().await;
    assert_eq!(first.headers.get_all(SET_COOKIE).iter().count(), 2);
    assert!(first.headers.contains_key("x-trace"));
    let replay = call().send().await;
    first.headers.remove(SET_COOKIE);
    first.headers.remove("x-trace");
    assert!(first.headers.contains_key("x-kept"));
    replay.assert_replays(&first);
}

/// An API that says `{"errors": [{"code", "message"}]}`, in another media type, of everything but an outage.
fn shape(details: ProblemDetails) -> Response {
    let error = json!({
        "code": details.problem.code(),
        "message": details.detail,
        "title": details.title,
        "status": details.problem.status().as_u16(),
        "see": details.documentation,
    });
    match details.problem {
        IdempotencyProblem::BackendUnavailable => details.into_response(),
        IdempotencyProblem::KeyReused => (StatusCode::CONFLICT, [(LINK, "</keys>")], Json(error)).into_response(),
        _ => Json(json!({ "errors": [error] })).into_response(),
    }
}

/// What an outer layer makes of problems, beside the response itself.
async fn name_the_problem(response: Response) -> Response {
    let problem = response.extensions().get::<IdempotencyProblem>().copied();
    let name = problem.map(|problem| [("x-problem", problem.code())]);
    (name.map(AppendHeaders), response).into_response()
}

async fn shaped() -> Service {
    let idempotency = Idempotency::new(MemoryBackend::new())
        .with_documentation("https://example.com/keys")
        .with_problem_response(shape);
    let routes = Router::<App>::new();
    Service::wrapped(idempotency, routes, |router| {
        router.layer(map_response(name_the_problem))
    })
    .await
}

#[tokio::test]
async fn a_problem_of_another_shape_keeps_its_status_headers_and_extension() {
    let service = shaped().await;
    let missing = service.client.call(Method::POST, "/orders").json(&Order::new("o"));
    let missing = missing.send().await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    assert_eq!(missing.headers["content-type"], "application/json");
    assert_eq!(
        missing.headers[LINK],
        "<https://example.com/keys#key-missing>; rel=\"describedby\""
    );
    assert_eq!(missing.headers["x-problem"], "key-missing");
    let expected = json!({ "errors": [{
        "code": "key-missing",
        "message": "This operation needs an idempotency key in the header `idempotency-key`.",
        "title": "Idempotency key missing",
        "status": 400,
        "see": "https://example.com/keys#key-missing",
    }] });
    assert_eq!(missing.json(), expected);

    let held = service.client.order("k", &Order::new("o").held());
    let first = tokio::spawn(held.send());
    service.app.wait_until_started(1).await;
    let in_flight = service.client.order("k", &Order::new("o").held()).send().await;
    assert_eq!(in_flight.status, StatusCode::CONFLICT);
    assert_eq!(in_flight.headers[RETRY_AFTER], "1");
    assert_eq!(in_flight.json()["errors"][0]["code"], "in-flight");

    let reused = service.client.order("k", &Order::new("p")).send().await;
    assert_eq!(reused.status, StatusCode::CONFLICT, "the shape's own status");
    assert_eq!(reused.headers[LINK], "</keys>", "the shape's own header");
    assert_eq!(reused.headers["x-problem"], "key-reused");
    service.app.open_gate();
    assert_eq!(first.await.expect("no panic").status, StatusCode::CREATED);
}

#[tokio::test]
async fn neither_an_acceptance_nor_an_answer_of_the_handler_is_a_problem() {
    let service = shaped().await;
    let order = Order::new("o").held();
    let first = tokio::spawn(service.client.order_at("/orders/accepting", "k", &order).send());
    service.app.wait_until_started(1).await;
    let accepted = service.client.order_at("/orders/accepting", "k", &order).send().await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    assert_eq!(accepted.headers[RETRY_AFTER], "1");
    assert!(accepted.body.is_empty());
    assert!(!accepted.headers.contains_key("x-problem"));
    service.app.open_gate();
    let first = first.await.expect("no panic");
    assert!(!first.headers.contains_key("x-problem"));

    let refused = Order::new("p").answered_with(422);
    let first = service.client.order("l", &refused).send().await;
    let replay = service.client.order("l", &refused).send().await;
    assert!(!first.headers.contains_key("x-problem"));
    replay.assert_replays(&first);
}
