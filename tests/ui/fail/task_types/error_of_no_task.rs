#![allow(unused)]

use idem_task::{Engine, idempotent};

struct ShipError;

#[idempotent(engine = engine, name = "ship", scope = global, key = id, ttl = "1h")]
async fn ship(engine: Engine, id: u32) -> Result<u32, ShipError> {
    Err(ShipError)
}

fn main() {}
