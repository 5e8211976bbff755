//! In a unit test the function is called as any other, and runs unguarded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{MethodRouter, post};
use idem_axum::{Idempotency, MemoryBackend, idempotent, unguarded};

use super::NewOrder;

type Count = Arc<AtomicU32>;

#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(
    State(count): State<Count>,
    Path(tenant): Path<String>,
    Json(order): Json<NewOrder>,
) -> (StatusCode, String) {
    count.fetch_add(1, Ordering::SeqCst);
    (StatusCode::CREATED, format!("{} to {tenant}", order.item))
}

#[idempotent(ttl = "1m", scope = global)]
async fn cancel_order() {}

#[idempotent(ttl = "1m", scope = global, engine = idempotency)]
async fn change_order(State(idempotency): State<Idempotency>) {
    drop(idempotency);
}

#[tokio::test]
async fn each_call_runs_it() {
    let count = Count::default();
    for _ in 0..2 {
        let (item, order_id) = ("pump".to_owned(), "o-1".to_owned());
        let order = NewOrder { item, order_id };
        let answer = place_order(State(count.clone()), Path("acme".into()), unguarded(Json(order))).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await;
        assert_eq!(body.expect("in memory"), "pump to acme");
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert_eq!(cancel_order(unguarded(())).await.status(), StatusCode::OK);
    let idempotency = Idempotency::new(MemoryBackend::new());
    assert_eq!(
        change_order(unguarded(State(idempotency))).await.status(),
        StatusCode::OK
    );
}

pub(crate) fn route() -> MethodRouter {
    post(place_order).delete(cancel_order).with_state(Count::default())
}
