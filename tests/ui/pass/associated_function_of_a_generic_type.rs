//! `Self` and a parameter of the `impl`.

use std::marker::PhantomData;

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

struct Api<T>(PhantomData<T>);

impl<T: Default + ToString + Send + 'static> Api<T> {
    fn start() -> T {
        T::default()
    }

    #[idempotent(ttl = "1m", scope = body)]
    async fn create(body: String) -> String {
        body + &Self::start().to_string()
    }
}

pub(crate) fn route() -> MethodRouter {
    post(Api::<u8>::create)
}
