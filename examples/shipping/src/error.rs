//! What a handler answers when it cannot do its work.
//!
//! Owns status, headers and body of those answers. A client learns what it can mend; causes go to the log.

use std::error::Error;

use axum::Json;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No token, or none that is known.
    #[error("a known bearer token is needed")]
    Unauthorized,
    /// A field of the order that cannot be taken as it is.
    #[error("`{field}` {fault}")]
    Invalid { field: &'static str, fault: &'static str },
    /// The database failed. The answer is 500, which is not stored, so a retry runs again.
    #[error("the order could not be handled; try again")]
    Database(#[from] sqlx::Error),
}

/// What a client is told of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: String,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Database(cause) = &self {
            tracing::error!(error = cause as &dyn Error, "the database failed");
        }
        let body = Json(ErrorBody {
            error: self.to_string(),
        });
        let mut response = (self.status(), body).into_response();
        if matches!(self, Self::Unauthorized) {
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
