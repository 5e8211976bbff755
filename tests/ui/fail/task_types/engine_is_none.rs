#![allow(unused)]

use idem_task::{Refused, idempotent};

#[idempotent(engine = id, name = "ship", scope = global, key = id, ttl = "1h")]
async fn ship(id: u32) -> Result<u32, Refused> {
    Ok(id)
}

fn main() {}
