#[idempotent(ttl = "24h", scope = global)]
async fn events(body: String) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::iter([Event::default().data(body)]).map(Ok))
}

// expands to

fn events(
    body: ::idem_axum::__private::Guarded<String>,
) -> ::idem_axum::__private::BoxFuture<'static, ::idem_axum::__private::Response> {
    let (guard, body) = body.split();
    ::idem_axum::__private::run(
        guard,
        const { &::idem_axum::__private::Operation::new(86400000u64) },
        ::idem_axum::__private::scope::global(),
        async move {
            let body = body;
            let body = body;
            let answer: Sse<_> = async move {
                if false {
                    return ::idem_axum::__private::never::<Sse<_>>();
                }
                Sse::new(stream::iter([Event::default().data(body)]).map(Ok))
            }
                .await;
            {
                fn returned(_: &Sse<impl Stream<Item = Result<Event, Infallible>>>) {}
                returned(&answer);
            }
            ::idem_axum::__private::into_response(answer)
        },
    )
}
