#[idempotent(ttl = "24h", scope = global, header = "X-Request-Key")]
async fn place_order(body: String) -> String {
    body
}

// expands to

fn place_order(
    body: ::idem_axum::__private::Guarded<
        String,
        ::idem_axum::__private::FromLayerByHeader,
    >,
) -> ::idem_axum::__private::BoxFuture<'static, ::idem_axum::__private::Response> {
    let (guard, body) = body.split();
    ::idem_axum::__private::run(
        guard,
        const {
            &::idem_axum::__private::Operation::new(86400000u64)
                .with_policy(::idem_axum::Policy::new().with_header("x-request-key"))
        },
        ::idem_axum::__private::scope::global(),
        async move {
            let body = body;
            let body = body;
            let answer: String = async move {
                if false {
                    return ::idem_axum::__private::never::<String>();
                }
                body
            }
                .await;
            ::idem_axum::__private::into_response(answer)
        },
    )
}
