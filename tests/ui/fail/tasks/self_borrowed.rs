#![allow(unused)]

use idem_task::{Engine, Refused, idempotent};

struct App {
    engine: Engine,
}

impl App {
    #[idempotent(engine = self.engine, name = "ship", scope = global, key = id, ttl = "1h")]
    async fn ship(&self, id: u32) -> Result<u32, Refused> {
        Ok(id)
    }
}

fn main() {}
