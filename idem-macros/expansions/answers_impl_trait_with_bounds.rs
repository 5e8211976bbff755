#[idempotent(ttl = "24h", scope = global)]
async fn place_order<L: Ledger>(State(ledger): State<L>, body: String) -> impl IntoResponse + From<L> + use<L> {
    ledger.write(body)
}

// expands to

fn place_order<L: Ledger>(
    ledger: State<L>,
    body: ::idem_axum::__private::Guarded<String>,
) -> ::idem_axum::__private::BoxFuture<'static, ::idem_axum::__private::Response> {
    let (guard, body) = body.split();
    ::idem_axum::__private::run(
        guard,
        const { &::idem_axum::__private::Operation::new(86400000u64) },
        ::idem_axum::__private::scope::global(),
        async move {
            let (ledger, body) = (ledger, body);
            let State(ledger) = ledger;
            let body = body;
            let answer: _ = async move {
                if false {
                    return ::idem_axum::__private::never::<_>();
                }
                ledger.write(body)
            }
                .await;
            {
                fn _returned<L: Ledger>(_: &(impl IntoResponse + From<L>)) {}
            }
            ::idem_axum::__private::into_response(answer)
        },
    )
}
