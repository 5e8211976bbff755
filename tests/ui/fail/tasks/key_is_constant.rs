#![allow(unused)]

use idem_task::{Engine, Refused, idempotent};

#[idempotent(engine = engine, name = "ship", scope = OTHER, key = 7, ttl = "1h")]
async fn ship(engine: Engine, id: u32) -> Result<u32, Refused> {
    Ok(id)
}

fn main() {}
