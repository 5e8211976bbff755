//! The API as an `OpenAPI` document, for `/openapi.json`.
//!
//! Owns what is said of the API as a whole. Each route is described where its handler is, and what a client sends and gets
//! for the sake of idempotency by the layer itself. Of the two handlers that may be behind `/shipping/order`, it describes the one
//! with more answers: only a transaction can be rolled back.

use idem_axum::Idempotency;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify as _, OpenApi as _};

use crate::orders;

#[derive(utoipa::OpenApi)]
#[openapi(info(title = "Shipping"), paths(orders::place_order))]
struct Api;

/// What `idempotency` guards, described.
pub(crate) fn of(idempotency: &Idempotency) -> OpenApi {
    let mut document = Api::openapi();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", bearer);
    idempotency.modify(&mut document);
    document
}
