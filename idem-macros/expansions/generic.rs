/// Places an order.
#[tracing::instrument(skip_all)]
#[idempotent(ttl = "24h", scope = ledger.name())]
#[must_use]
pub(crate) async fn place_order<L, const N: usize>(State(ledger): State<L>, body: String) -> Result<L, [u8; N]>
where
    L: Ledger,
{
    ledger.write(body)
}

// expands to

/// Places an order.
#[tracing::instrument(skip_all)]
#[must_use]
pub(crate) async fn place_order<L, const N: usize>(
    ledger: State<L>,
    body: ::idem_axum::__private::Guarded<String>,
) -> ::idem_axum::__private::Response
where
    L: Ledger,
{
    let (guard, body) = body.split();
    ::idem_axum::__private::run(
            guard,
            const { &::idem_axum::__private::Operation::new(86400000u64) },
            {
                let State(ledger) = &ledger;
                ::idem_axum::__private::scope::of(&ledger.name())
            },
            async move {
                let (ledger, body) = (ledger, body);
                let State(ledger) = ledger;
                let body = body;
                let _ = &ledger;
                let answer: Result<L, [u8; N]> = async move {
                    if false {
                        return ::idem_axum::__private::never::<Result<L, [u8; N]>>();
                    }
                    ledger.write(body)
                }
                    .await;
                ::idem_axum::__private::into_response(answer)
            },
        )
        .await
}
