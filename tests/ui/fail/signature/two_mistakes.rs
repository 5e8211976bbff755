use idem_axum::idempotent;

struct Orders;

impl Orders {
    #[idempotent(ttl = "24h", scope = global)]
    fn place(self, #[cfg(all())] body: String) -> String {
        body
    }
}

fn main() {}
