#![allow(unused)]

use idem_task::{Engine, Refused, idempotent};

#[idempotent(engine = engine, name = "ship", scope = global, key = id, ttl = "1h", in_flight = "accept", fingerprint = "request")]
async fn ship(engine: Engine, id: u32) -> Result<u32, Refused> {
    Ok(id)
}

fn main() {}
