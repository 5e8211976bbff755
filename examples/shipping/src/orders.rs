//! Orders: their types and their handlers.
//!
//! Owns what the routes do. [`place_order`] is the one to look at: an ordinary handler, one line that makes it safe to
//! retry, and a transaction that has the order's row and the record of its answer. [`place_order_by_request`] takes its
//! place where there is no such transaction. The naive handler has neither.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use idem_axum::sqlx::Sqlite;
use idem_axum::{Execution, Transaction, idempotent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::db;
use crate::error::{ApiError, ErrorBody};
use crate::tenant::Tenant;

/// What a client sends. The schema says what [`NewOrder::check`] demands.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewOrder {
    #[schema(min_length = 1, pattern = r"^[^\u0000]*$")]
    pub(crate) order_id: String,
    #[schema(min_length = 1, pattern = r"^[^\u0000]*$")]
    pub(crate) vendor: String,
    #[schema(min_length = 1, pattern = r"^[^\u0000]*$")]
    pub(crate) address: String,
}

/// What it gets for it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Receipt {
    ok: bool,
    shipping_id: i64,
}

/// A row, as its tenant sees it.
#[derive(Debug, Serialize, sqlx::FromRow)]
#[expect(clippy::struct_field_names, reason = "clients know the fields by these names")]
pub(crate) struct Order {
    shipping_id: i64,
    order_id: String,
    vendor: String,
    address: String,
    created_at: String,
}

/// What placing an order comes to.
type Placed = Result<(StatusCode, Json<Receipt>), ApiError>;

/// Ships an order.
// For records in the same file of SQLite as the orders. The document of the API describes this handler.
//
// Whoever sends an order again while it is placed wants its receipt, which is seconds away, and not a refusal. The wait is
// longer than a lease: where the process of the first one dies, the one that waits is still there to run in its place.
// The lease is short, so that a retry soon runs in the place of a process that died. A live process renews it.
#[idempotent(ttl = "24h", scope = "tenant", lease = "3s", in_flight = "wait", wait = "45s")]
#[utoipa::path(
    post,
    path = "/shipping/order",
    request_body = NewOrder,
    security(("token" = [])),
    responses(
        (status = 201, description = "It is on its way.", body = Receipt),
        (status = 400, description = "The body is not JSON.", body = String, content_type = "text/plain"),
        (status = 401, description = "A known bearer token is needed.", body = ErrorBody),
        (status = 413, description = "The body is larger than 2 MB.", body = String, content_type = "text/plain"),
        (status = 415, description = "The body is not `application/json`.", body = String, content_type = "text/plain"),
        (
            status = 422,
            description = "A field is empty or has the character U+0000; or, as text, a field is missing or is no string.",
            content((ErrorBody = "application/json"), (String = "text/plain")),
        ),
    )
)]
pub(crate) async fn place_order(
    State(app): State<App>,
    tenant: Tenant,
    mut transaction: Transaction<Sqlite>,
    Json(order): Json<NewOrder>,
) -> Placed {
    order.check()?;
    pack(&app, &tenant, &order).await;
    // The slow work comes first: from here to its end, the transaction keeps everybody else from writing to the file.
    let connection = transaction.begin().await?;
    let shipping_id = db::insert_in(connection, &tenant, &order).await?;
    // The row and the record of this answer are committed together.
    Ok(receipt(&tenant, &order, shipping_id))
}

/// The same for records in Redis, and in Postgres: the row is written first, and may be there without a record.
#[idempotent(ttl = "24h", scope = "tenant", lease = "3s", in_flight = "wait", wait = "45s")]
pub(crate) async fn place_order_by_request(
    State(app): State<App>,
    tenant: Tenant,
    execution: Execution,
    Json(order): Json<NewOrder>,
) -> Placed {
    // If the process dies with the row written and no answer recorded, the run in its place finds the row by the
    // request, and ships under the same id. In Postgres, `Transaction` is the other way (see examples/payments).
    place(&app, execution.record_key(), &tenant, &order).await
}

pub(crate) async fn place_order_naively(State(app): State<App>, tenant: Tenant, Json(order): Json<NewOrder>) -> Placed {
    place(&app, None, &tenant, &order).await
}

pub(crate) async fn list_orders(State(app): State<App>, tenant: Tenant) -> Result<Json<Vec<Order>>, ApiError> {
    Ok(Json(app.db.orders(&tenant).await?))
}

/// Writes the row first and packs then: a handler that is dropped half-way has left its effect behind.
async fn place(app: &App, request: Option<&str>, tenant: &Tenant, order: &NewOrder) -> Placed {
    order.check()?;
    let shipping_id = app.db.insert(request, tenant, order).await?;
    pack(app, tenant, order).await;
    Ok(receipt(tenant, order, shipping_id))
}

/// The slow work of an order, as far as there is any. Packing again does no harm; it is the row that ships.
#[tracing::instrument(skip_all)]
async fn pack(app: &App, tenant: &Tenant, order: &NewOrder) {
    tracing::info!(%tenant, order_id = ?order.order_id, "packing");
    tokio::time::sleep(app.delay).await;
}

fn receipt(tenant: &Tenant, order: &NewOrder, shipping_id: i64) -> (StatusCode, Json<Receipt>) {
    tracing::info!(%tenant, order_id = ?order.order_id, shipping_id, "placed");
    (StatusCode::CREATED, Json(Receipt { ok: true, shipping_id }))
}

impl NewOrder {
    fn check(&self) -> Result<(), ApiError> {
        let fields = [
            ("order_id", &self.order_id),
            ("vendor", &self.vendor),
            ("address", &self.address),
        ];
        for (field, value) in fields {
            if value.is_empty() {
                let fault = "must not be empty";
                return Err(ApiError::Invalid { field, fault });
            }
            // Postgres has no such character in a text, and no retry would change that.
            if value.contains('\0') {
                let fault = "must not contain U+0000";
                return Err(ApiError::Invalid { field, fault });
            }
        }
        Ok(())
    }
}
