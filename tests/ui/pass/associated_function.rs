//! `Self` in the body, the arguments and the return type.

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

pub(crate) struct Api(&'static str);

impl IntoResponse for Api {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Api {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        Ok(Self(Self::NAME))
    }
}

impl Api {
    const NAME: &'static str = "api";

    #[idempotent(ttl = "1m", scope = tenant)]
    pub(crate) async fn create(api: Self, Path(tenant): Path<String>) -> Result<Self, StatusCode> {
        if tenant.is_empty() || api.0 != Self::NAME {
            return Err(StatusCode::NOT_FOUND);
        }
        Ok(Self("created"))
    }
}

pub(crate) fn route() -> MethodRouter {
    post(Api::create)
}
