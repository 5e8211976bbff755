//! Handlers of every body and argument: each runs once and is replayed. Those of every form of the language are in `ui/pass`.

use axum::body::Bytes;
use axum::extract::{Form, Multipart, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{MethodRouter, post};
use axum::{Json, Router};
use idem_axum::idempotent;
use idem_tests::{App, Service};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Serialize, Deserialize)]
struct Input {
    a: String,
}

#[idempotent(ttl = "1m", scope = global)]
async fn no_arguments() -> &'static str {
    "none"
}

#[idempotent(ttl = "1m", scope = global)]
async fn returns_nothing() {}

#[idempotent(ttl = "1m", scope = "a")]
async fn json_body(Json(Input { mut a }): Json<Input>) -> String {
    a.push('!');
    a
}

#[idempotent(ttl = "1m", scope = input.a)]
async fn form_body(Form(input): Form<Input>) -> String {
    input.a
}

#[idempotent(ttl = "1m", scope = body)]
async fn string_body(body: String) -> String {
    body
}

#[idempotent(ttl = "1m", scope = body.len())]
async fn bytes_body(body: Bytes) -> Bytes {
    body
}

#[idempotent(ttl = "1m", scope = request.method())]
async fn whole_request(request: Request) -> String {
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
    format!("{:?}", body.map(|body| body.len()).ok())
}

#[idempotent(ttl = "1m", scope = global)]
async fn multipart_body(mut form: Multipart) -> Result<String, StatusCode> {
    let mut names = String::new();
    while let Some(field) = form.next_field().await.map_err(|_| StatusCode::BAD_REQUEST)? {
        names.push_str(field.name().unwrap_or("?"));
        names.push_str(&field.text().await.map_err(|_| StatusCode::BAD_REQUEST)?);
    }
    Ok(names)
}

#[idempotent(ttl = "1m", scope = global)]
async fn optional_body(body: Option<Json<Input>>) -> String {
    body.map_or_else(|| "none".into(), |Json(input)| input.a)
}

#[idempotent(ttl = "1m", scope = global)]
async fn fallible_body(body: Result<Json<Input>, axum::extract::rejection::JsonRejection>) -> String {
    body.map_or_else(|rejection| rejection.body_text(), |Json(input)| input.a)
}

#[idempotent(ttl = "1m", scope = headers.len())]
async fn headers_last(headers: HeaderMap) -> String {
    format!("{}", headers.contains_key("idempotency-key"))
}

#[idempotent(ttl = "1m", scope = global)]
async fn state_last(State(app): State<App>) -> String {
    app.executions("never").to_string()
}

#[idempotent(ttl = "1m", scope = (tenant, (user, query.a)), key = (user, body.a))]
async fn many_arguments(
    State(_): State<App>,
    Path((tenant, user)): Path<(String, u32)>,
    Query(query): Query<Input>,
    _: HeaderMap,
    Json(ref body): Json<Input>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let first = body.a.chars().next().ok_or(StatusCode::IM_A_TEAPOT)?;
    if user == 0 {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok((
        StatusCode::CREATED,
        Json(json!({ "tenant": tenant, "user": user, "query": query.a, "first": first })),
    ))
}

/// The route, the handler, and a call of it: target, content type, body, expected body.
type Case = (
    &'static str,
    MethodRouter<App>,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

fn cases() -> Vec<Case> {
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    vec![
        ("/none", post(no_arguments), "/none", "", "", "none"),
        ("/nothing", post(returns_nothing), "/nothing", "", "", ""),
        ("/json", post(json_body), "/json", json, r#"{"a":"x"}"#, "x!"),
        ("/form", post(form_body), "/form", form, "a=x", "x"),
        ("/string", post(string_body), "/string", "", "x", "x"),
        ("/bytes", post(bytes_body), "/bytes", "", "x", "x"),
        ("/request", post(whole_request), "/request", "", "xyz", "Some(3)"),
        ("/option", post(optional_body), "/option", json, r#"{"a":"x"}"#, "x"),
        ("/result", post(fallible_body), "/result", json, r#"{"a":"x"}"#, "x"),
        ("/headers", post(headers_last), "/headers", "", "", "true"),
        ("/state", post(state_last), "/state", "", "", "0"),
        (
            "/many/{tenant}/{user}",
            post(many_arguments),
            "/many/acme/7?a=q",
            json,
            r#"{"a":"x"}"#,
            r#"{"first":"x","query":"q","tenant":"acme","user":7}"#,
        ),
    ]
}

fn routes() -> Router<App> {
    let routes = Router::new().route("/multipart", post(multipart_body));
    cases()
        .into_iter()
        .fold(routes, |routes, (route, handler, ..)| routes.route(route, handler))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_runs_once_and_is_replayed() {
    let service = Service::redis(routes()).await;
    for (_, _, target, content_type, body, expected) in cases() {
        let call = || {
            let call = service.client.call(Method::POST, target).key("k").body(body);
            call.header("content-type", content_type.as_bytes())
        };
        let first = call().send().await;
        assert!(first.status.is_success(), "{target}: {first:?}");
        assert_eq!(String::from_utf8_lossy(&first.body), expected, "{target}");
        call().send().await.assert_replays(&first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_multipart_form_encoded_again_is_replayed() {
    let service = Service::redis(routes()).await;
    let call = |boundary: &str, value: &str| {
        let body =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n--{boundary}--\r\n");
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let call = service.client.call(Method::POST, "/multipart").key("k").body(body);
        call.header("content-type", content_type.as_bytes())
    };
    let first = call("one", "x").send().await;
    assert_eq!(first.body, "ax");
    call("another", "x").send().await.assert_replays(&first);
    assert_eq!(call("one", "y").send().await.problem(), "key-reused");
}

/// Whatever reads it later, the body is read whole before, and within the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_request_is_read_within_the_limit() {
    let service = Service::redis(routes()).await;
    let call = |len: usize| {
        let call = service
            .client
            .call(Method::POST, "/request")
            .key("k")
            .body(vec![b'x'; len]);
        call.send()
    };
    let limit = 2 * 1024 * 1024;
    assert_eq!(call(limit + 1).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(call(limit).await.body, format!("Some({limit})"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_return_and_a_question_mark_end_the_handler_and_not_more() {
    let service = Service::redis(routes()).await;
    let call = |user: u32, body: &'static str| {
        let call = service
            .client
            .call(Method::POST, &format!("/many/acme/{user}?a=q"))
            .body(body);
        call.header("content-type", b"application/json")
    };
    let returned = call(0, r#"{"a":"x"}"#).send().await;
    assert_eq!(returned.status, StatusCode::NOT_FOUND);
    call(0, r#"{"a":"x"}"#).send().await.assert_replays(&returned);
    // A part of a tuple key counts as a key of its own: it must not be empty either.
    assert_eq!(call(7, r#"{"a":""}"#).send().await.problem(), "key-invalid");
}
