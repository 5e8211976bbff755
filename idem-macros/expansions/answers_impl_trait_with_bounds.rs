#[idempotent(ttl = "24h", scope = global)]
async fn place_order<L: Ledger>(State(ledger): State<L>, body: String) -> impl IntoResponse + From<L> + use<L> {
    ledger.write(body)
}
