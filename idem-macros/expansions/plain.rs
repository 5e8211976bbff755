#[idempotent(ttl = "24h", scope = "tenant")]
async fn place_order(Path(tenant): Path<String>, Json(order): Json<NewOrder>) -> (StatusCode, Json<Receipt>) {
    let shipped = format!("{} to {tenant}", order.item);
    (StatusCode::CREATED, Json(Receipt { shipped }))
}

// expands to

fn place_order(
    tenant: Path<String>,
    order: ::idem_axum::__private::Guarded<Json<NewOrder>>,
) -> ::idem_axum::__private::BoxFuture<'static, ::idem_axum::__private::Response> {
    let (guard, order) = order.split();
    ::idem_axum::__private::run(
        guard,
        const { &::idem_axum::__private::Operation::new(86400000u64) },
        {
            let Path(tenant) = &tenant;
            ::idem_axum::__private::scope::of(&tenant)
        },
        async move {
            let (tenant, order) = (tenant, order);
            let Path(tenant) = tenant;
            let Json(order) = order;
            let _ = &tenant;
            let answer: (StatusCode, Json<Receipt>) = async move {
                if false {
                    return ::idem_axum::__private::never::<
                        (StatusCode, Json<Receipt>),
                    >();
                }
                let shipped = format!("{} to {tenant}", order.item);
                (StatusCode::CREATED, Json(Receipt { shipped }))
            }
                .await;
            ::idem_axum::__private::into_response(answer)
        },
    )
}
