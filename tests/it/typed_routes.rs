//! Annotated handlers in routers that read their signatures: typed routes of axum-extra, and aide.

use aide::axum::ApiRouter;
use aide::axum::routing::{delete_with, post_with};
use aide::openapi::OpenApi;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router};
use axum_extra::routing::{RouterExt as _, TypedPath};
use idem_axum::{Execution, idempotent};
use idem_tests::{App, Service};
use reqwest::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, TypedPath)]
#[typed_path("/typed/{tenant}/orders/{id}")]
struct OrderPath {
    tenant: String,
    id: u32,
}

#[derive(Deserialize, TypedPath)]
#[typed_path("/typed")]
struct Everything;

#[idempotent(ttl = "1m", scope = tenant)]
async fn cancel_order(OrderPath { tenant, id }: OrderPath) -> String {
    format!("{id} of {tenant} is cancelled")
}

#[idempotent(ttl = "1m", scope = path.tenant, header = "X-Request-Key")]
async fn place_order(path: OrderPath) -> (StatusCode, String) {
    (StatusCode::CREATED, path.to_string())
}

#[idempotent(ttl = "1m", scope = path.tenant)]
async fn change_order(path: OrderPath, execution: Execution, body: String) -> String {
    let key = execution.downstream_key("change");
    format!("{body} for {} under {key}", path.id)
}

#[idempotent(ttl = "1m", scope = global)]
async fn cancel_all(_: Everything) -> StatusCode {
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn a_handler_of_a_typed_path_alone_is_on_a_typed_route() {
    let routes = Router::<App>::new()
        .typed_delete(cancel_order)
        .typed_post(place_order)
        .typed_put(change_order)
        .typed_patch(cancel_all);
    let service = Service::memory(routes).await;
    let send = async |method: Method, path: &str, header: &str| {
        let call = service.client.call(method, path).header(header, b"k");
        call.body("a pump").send().await
    };
    let (order, key) = ("/typed/acme/orders/7", "idempotency-key");
    for (method, path, header, said) in [
        (Method::DELETE, order, key, "7 of acme is cancelled"),
        (Method::POST, order, "x-request-key", order),
        (Method::PUT, order, key, "a pump for 7 under "),
        (Method::PATCH, "/typed", key, ""),
    ] {
        let first = send(method.clone(), path, header).await;
        assert!(first.status.is_success(), "{method} {path}: {first:?}");
        let text = String::from_utf8_lossy(&first.body).into_owned();
        assert!(text.starts_with(said), "{method} {path}: {text}");
        send(method, path, header).await.assert_replays(&first);
    }
    // Another order of the same route.
    let other = send(Method::DELETE, "/typed/acme/orders/8", key).await;
    assert_eq!(other.problem(), "key-reused");
    let refused = send(Method::DELETE, "/typed/acme/orders/eight", key).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[derive(Deserialize, JsonSchema)]
struct NewParcel {
    item: String,
}

#[derive(Serialize, JsonSchema)]
struct Parcel {
    shipped: String,
}

#[idempotent(ttl = "1m", scope = global)]
async fn ship(State(_): State<App>, execution: Execution, Json(parcel): Json<NewParcel>) -> Json<Parcel> {
    drop(execution);
    let shipped = parcel.item;
    Json(Parcel { shipped })
}

#[idempotent(ttl = "1m", scope = global)]
async fn recall() -> StatusCode {
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn a_handler_on_an_api_route_is_described_by_its_own_arguments() {
    let mut document = OpenApi::default();
    let routes = ApiRouter::<App>::new()
        .api_route(
            "/parcels",
            post_with(ship, |operation| operation.id("ship").response::<200, Json<Parcel>>())
                .merge(delete_with(recall, |operation| operation.id("recall"))),
        )
        .finish_api(&mut document);

    let document = serde_json::to_value(&document).expect("JSON");
    let ship = &document["paths"]["/parcels"]["post"];
    assert_eq!(
        ship["requestBody"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/NewParcel"
    );
    assert_eq!(
        ship["responses"]["200"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/Parcel"
    );
    assert_eq!(ship["parameters"], Value::Null);
    assert_eq!(document["paths"]["/parcels"]["delete"]["operationId"], "recall");

    let service = Service::memory(routes).await;
    let send = async |method: Method| {
        let call = service.client.call(method, "/parcels").key("k");
        call.json(&json!({ "item": "pump" })).send().await
    };
    for method in [Method::POST, Method::DELETE] {
        let first = send(method.clone()).await;
        assert!(first.status.is_success(), "{first:?}");
        send(method).await.assert_replays(&first);
    }
}
