#[idempotent(ttl = "24h", scope = global, engine = app.idempotency)]
async fn place_order(State(app): State<App>, body: String) -> String {
    body
}

// expands to

fn place_order(
    app: State<App>,
    body: ::idem_axum::__private::Guarded<String, ::idem_axum::__private::FromArgument>,
) -> ::idem_axum::__private::BoxFuture<'static, ::idem_axum::__private::Response> {
    let (guard, body) = body.split();
    let guard = {
        let State(app) = &app;
        guard.with_engine(&app.idempotency)
    };
    ::idem_axum::__private::run(
        guard,
        const { &::idem_axum::__private::Operation::new(86400000u64) },
        ::idem_axum::__private::scope::global(),
        async move {
            let (app, body) = (app, body);
            let State(app) = app;
            let body = body;
            let _ = &app;
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
