#![allow(unused)]

use idem_task::{Refused, idempotent};

#[idempotent(key = id, scope = global, ttl = "1h")]
async fn ship(id: u32) -> Result<u32, Refused> {
    Ok(id)
}

fn main() {}
