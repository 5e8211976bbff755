use axum::Json;
use idem_axum::idempotent;

#[derive(serde::Deserialize)]
struct NewOrder {
    tenant: String,
}

impl NewOrder {
    fn into_tenant(self) -> String {
        self.tenant
    }
}

#[idempotent(ttl = "24h", scope = order.into_tenant())]
async fn place_order(Json(order): Json<NewOrder>) {
    drop(order);
}

fn main() {}
