//! The retry loops in the guide for clients, copied as a reader would copy them, while the first answer gets lost.
//!
//! Owns the blocks that no documentation test can run: those for the shell and for JavaScript.

use std::path::Path;
use std::process::Output;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Idempotency, MemoryBackend, idempotent};
use idem_tests::{App, Order, Proxy, Service, TENANT, Tenant, in_time};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::watch;

const PAGE: &str = include_str!("../../idem-axum/src/guide/clients.md");

/// The one block of the page in `language`.
fn block(language: &str) -> &'static str {
    let fence = format!("\n```{language}\n");
    let mut blocks = PAGE
        .split(fence.as_str())
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next());
    let block = blocks.next().expect("the page has a block of that language");
    assert_eq!(blocks.next(), None, "the page has one block of that language");
    block
}

/// Which answers went out, as far as somebody was there to get them: the status, and whether it was a replay.
type Answers = watch::Sender<Vec<(StatusCode, bool)>>;

async fn note_answers(State(answers): State<Answers>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let is_replay = response.headers().contains_key("idempotent-replayed");
    answers.send_modify(|answers| answers.push((response.status(), is_replay)));
    response
}

#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order.held()).await
}

/// Runs `program` on the text of a block, in a folder of its own.
async fn run(program: &str, arguments: &[&str], folder: &Path, proxy: &Proxy) -> Output {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("SERVICE", format!("http://{}/shop", proxy.address))
        .env("TOKEN", TENANT)
        .env("no_proxy", "127.0.0.1")
        .current_dir(folder)
        .kill_on_drop(true);
    command.output().await.expect("`cargo xtask setup` has found it")
}

/// The connection breaks while the order is placed, the first retry finds it in flight, and the next one has the answer.
async fn places_one_order(program: &'static str, arguments: &'static [&'static str], file: &str, language: &str) {
    let answers = Answers::default();
    let noting = middleware::from_fn_with_state(answers.clone(), note_answers);
    let routes = Router::new().route("/shop/orders", post(place_order));
    let idempotency = Idempotency::new(MemoryBackend::new());
    let service = Service::wrapped(idempotency, routes, |router| router.layer(noting)).await;
    let proxy = Proxy::start(service.address).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join(file), block(language)).expect("the folder is there");

    let lose_and_let_go = async {
        service.app.wait_until_started(1).await;
        proxy.cut_connections();
        let mut seen = answers.subscribe();
        seen.wait_for(|answers| !answers.is_empty()).await.expect("it lives");
        service.app.open_gate();
    };
    let (output, ()) = tokio::join!(run(program, arguments, folder.path(), &proxy), lose_and_let_go);

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said.trim(), r#"201 {"execution":1,"order":"17","tenant":"acme"}"#);
    assert_eq!(service.app.executions("17"), 1);
    let expected = [(StatusCode::CONFLICT, false), (StatusCode::CREATED, true)];
    assert_eq!(*answers.borrow(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_for_curl_places_one_order() {
    in_time(places_one_order("bash", &["order.sh"], "order.sh", "bash")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_for_javascript_places_one_order() {
    in_time(places_one_order("node", &["order.mjs"], "order.mjs", "js")).await;
}
