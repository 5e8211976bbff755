#[idempotent(
    ttl = "1h 30m",
    scope = global,
    header = "X-Request-Key",
    required = false,
    name = "place-order",
    lease = "5s",
    in_flight = "wait",
    wait = "3s",
    after_crash = "rerun",
    rerun_within = "20h",
    max_attempts = 5,
    max_run = "10m",
    store = "success",
    fingerprint = "none",
    on_outage = "run",
    max_response = "64KiB",
    engine = app.idempotency,
    crate = ::renamed
)]
async fn place_order(State(app): State<App>, body: String) -> impl IntoResponse {
    app.place(body).await
}

// expands to

fn place_order(
    app: State<App>,
    body: ::renamed::__private::Guarded<
        String,
        ::renamed::__private::ComparesNothing<::renamed::__private::FromArgument>,
    >,
) -> ::renamed::__private::BoxFuture<'static, ::renamed::__private::Response> {
    let (guard, body) = body.split();
    let guard = {
        let State(app) = &app;
        guard.with_engine(&app.idempotency)
    };
    ::renamed::__private::run(
        guard,
        const {
            &::renamed::__private::Operation::new(5400000u64)
                .with_name("place-order")
                .with_policy(
                    ::renamed::Policy::new()
                        .with_header("x-request-key")
                        .with_required(false)
                        .with_lease(::core::time::Duration::from_millis(5000u64))
                        .with_in_flight(::renamed::InFlight::Wait)
                        .with_wait(::core::time::Duration::from_millis(3000u64))
                        .with_after_crash(::renamed::AfterCrash::Rerun)
                        .with_rerun_within(
                            ::core::time::Duration::from_millis(72000000u64),
                        )
                        .with_max_attempts(5u32)
                        .with_max_run(::core::time::Duration::from_millis(600000u64))
                        .with_store(::renamed::StoredAnswers::Success)
                        .with_fingerprint(::renamed::Compared::Nothing)
                        .with_on_outage(::renamed::OnOutage::Run)
                        .with_max_response(65536usize),
                )
        },
        ::renamed::__private::scope::global(),
        async move {
            let (app, body) = (app, body);
            let State(app) = app;
            let body = body;
            let _ = &app;
            let answer: _ = async move {
                if false {
                    return ::renamed::__private::never::<_>();
                }
                app.place(body).await
            }
                .await;
            {
                fn returned(_: &impl IntoResponse) {}
                returned(&answer);
            }
            ::renamed::__private::into_response(answer)
        },
    )
}
