use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, fingerprint = none)]
async fn word_without_quotes(body: String) -> String {
    body
}

#[idempotent(ttl = "24h", scope = global, fingerprint = "reqest")]
async fn misspelt_word(body: String) -> String {
    body
}

#[idempotent(ttl = "24h", scope = global, fingerprint = bodi.len())]
async fn misspelt_argument(body: String) -> String {
    body
}

#[idempotent(ttl = "24h", scope = global, fingerprint = 1)]
async fn nothing_at_all(body: String) -> String {
    body
}

fn main() {}
