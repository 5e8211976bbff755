//! Why an order was not placed, as a response.

use std::error::Error;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use idem_axum::JointError;

pub(crate) enum Failure {
    /// The database failed. The transaction is rolled back, and a retry runs again.
    Database(Box<dyn Error + Send + Sync>),
    /// The answer has no record. The error is the right answer.
    Joint(JointError),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Database(error) => {
                tracing::error!(%error, "the database failed");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
            Self::Joint(error) => error.into_response(),
        }
    }
}

impl From<JointError> for Failure {
    fn from(error: JointError) -> Self {
        Self::Joint(error)
    }
}

macro_rules! from_errors_of_databases {
    ($($error:ty,)*) => {
        $(
            impl From<$error> for Failure {
                fn from(error: $error) -> Self {
                    Self::Database(error.into())
                }
            }
        )*
    };
}

from_errors_of_databases! {
    ::diesel::result::Error,
    ::rusqlite::Error,
    ::sea_orm::DbErr,
    sqlx_08::Error,
    ::tokio_postgres::Error,
}
