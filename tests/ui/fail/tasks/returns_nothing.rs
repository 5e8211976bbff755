#![allow(unused)]

use idem_task::{Engine, Refused, idempotent};

#[idempotent(engine = engine, name = "ship", scope = global, key = id, ttl = "1h")]
async fn ship(engine: Engine, id: u32) {}

fn main() {}
