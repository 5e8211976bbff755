//! What clients send and get, and the table of orders in Postgres.

use serde::{Deserialize, Serialize};

/// Statements that are executed together are a transaction of their own.
pub(crate) const POSTGRES_SCHEMA: &str = "
    SELECT pg_advisory_xact_lock(7382);
    CREATE TABLE IF NOT EXISTS orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        item text NOT NULL
    );";

#[derive(Deserialize)]
pub(crate) struct NewOrder {
    pub(crate) item: String,
}

#[derive(Serialize)]
pub(crate) struct Receipt {
    pub(crate) id: i64,
}
