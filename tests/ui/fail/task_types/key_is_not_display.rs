#![allow(unused)]

use idem_task::{Engine, Refused, idempotent};

struct Id(u32);

#[idempotent(engine = engine, name = "ship", scope = global, key = id, ttl = "1h")]
async fn ship(engine: Engine, id: Id) -> Result<u32, Refused> {
    Ok(id.0)
}

fn main() {}
