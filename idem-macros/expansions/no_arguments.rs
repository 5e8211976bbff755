#[idempotent(ttl = "1m", scope = global)]
async fn refresh() {}

// expands to

fn refresh(
    nothing: ::idem_axum::__private::Guarded<()>,
) -> ::idem_axum::__private::BoxFuture<'static, ::idem_axum::__private::Response> {
    let (guard, nothing) = nothing.split();
    ::idem_axum::__private::run(
        guard,
        const { &::idem_axum::__private::Operation::new(60000u64) },
        ::idem_axum::__private::scope::global(),
        async move {
            let answer: () = async move {
                if false {
                    return ::idem_axum::__private::never::<()>();
                }
            }
                .await;
            ::idem_axum::__private::into_response(answer)
        },
    )
}
