#[idempotent(ttl = "24h", scope = (tenant, user.id), key = order.order_id, fingerprint = (order.item, order.amount))]
async fn place_order(tenant: Tenant, Extension(user): Extension<User>, Json(mut order): Json<NewOrder>) -> Json<Receipt> {
    order.ship(tenant, user)
}

// expands to

fn place_order(
    tenant: Tenant,
    user: Extension<User>,
    order: ::idem_axum::__private::Guarded<
        Json<NewOrder>,
        ::idem_axum::__private::ComparesValue,
    >,
) -> ::idem_axum::__private::BoxFuture<'static, ::idem_axum::__private::Response> {
    let (guard, order) = order.split();
    ::idem_axum::__private::run(
        guard,
        const { &::idem_axum::__private::Operation::new(86400000u64) },
        {
            let tenant = &tenant;
            let Extension(user) = &user;
            let Json(order) = &order;
            ::idem_axum::__private::Identity::new(
                    ::idem_axum::__private::scope::tuple([
                        ::idem_axum::__private::scope::of(&tenant),
                        ::idem_axum::__private::scope::of(&user.id),
                    ]),
                )
                .with_key(::idem_axum::__private::key::of(&order.order_id))
                .with_compared(
                    ::idem_axum::__private::fingerprint::tuple([
                        ::idem_axum::__private::fingerprint::of(&order.item),
                        ::idem_axum::__private::fingerprint::of(&order.amount),
                    ]),
                )
        },
        async move {
            let (tenant, user, order) = (tenant, user, order);
            let tenant = tenant;
            let Extension(user) = user;
            let Json(mut order) = order;
            let _ = (&order, &tenant, &user);
            let answer: Json<Receipt> = async move {
                if false {
                    return ::idem_axum::__private::never::<Json<Receipt>>();
                }
                order.ship(tenant, user)
            }
                .await;
            ::idem_axum::__private::into_response(answer)
        },
    )
}
