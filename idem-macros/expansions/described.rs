#[idempotent(ttl = "24h", scope = global, required = false)]
#[utoipa::path(post, path = "/orders", responses((status = 201, body = Receipt)))]
async fn place_order(Json(order): Json<NewOrder>) -> Json<Receipt> {
    order.place().await
}

// expands to

#[utoipa::path(
    post,
    path = "/orders",
    responses((status = 201, body = Receipt)),
    extensions(
        (
            "x-idempotency" = json!(
                ::idem_axum::__private::Mark::new(
                    &::idem_axum::__private::Operation::new(
                        86400000u64
                    ).with_policy(::idem_axum::Policy::new().with_required(false)),
                    false,
                    false
                )
            )
        )
    )
)]
async fn place_order(
    order: ::idem_axum::__private::Guarded<Json<NewOrder>>,
) -> ::idem_axum::__private::Response {
    let (guard, order) = order.split();
    ::idem_axum::__private::run(
            guard,
            const {
                &::idem_axum::__private::Operation::new(86400000u64)
                    .with_policy(::idem_axum::Policy::new().with_required(false))
            },
            ::idem_axum::__private::scope::global(),
            async move {
                let order = order;
                let Json(order) = order;
                let answer: Json<Receipt> = async move {
                    if false {
                        return ::idem_axum::__private::never::<Json<Receipt>>();
                    }
                    order.place().await
                }
                    .await;
                ::idem_axum::__private::into_response(answer)
            },
        )
        .await
}
