//! The URL of a database, and the pool that it stands for.
//!
//! Owns which URLs are taken. A URL may contain a password, so errors do not show it.

use std::time::Duration;

use idem_core::{BackendError, BackendErrorKind};
use log::LevelFilter;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgPool};

/// The threshold of sqlx for slow statements, left as it is.
const SLOW: Duration = Duration::from_secs(1);

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// A pool of handlers' transactions, which connects when it is needed.
pub(crate) fn pool(url: &str) -> Result<PgPool, BackendError> {
    // sqlx takes any scheme, and what follows another one for the name of the database, password included.
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(refused("the URL does not begin with `postgres://`"));
    }
    // The text of its error may contain a piece of the URL.
    let options: PgConnectOptions = url.parse().map_err(|_| refused("the URL cannot be read"))?;
    if demands_tls(options.get_ssl_mode()) && !sqlx_core::net::tls::available() {
        return Err(refused(
            "the `sslmode` of the URL asks for TLS, which was not built in: enable the feature `postgres-rustls` of idem-axum, or \
             `rustls` of idem-postgres",
        ));
    }
    // The statement that completes a claim in a handler's transaction contains the response, and sqlx logs slow statements as warnings.
    let options = options.log_slow_statements(LevelFilter::Debug, SLOW);
    Ok(PgPoolOptions::new().connect_lazy_with(options))
}

fn demands_tls(mode: PgSslMode) -> bool {
    matches!(mode, PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull)
}

fn refused(why: &'static str) -> BackendError {
    BackendError::new(BackendErrorKind::Config, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether TLS was built in depends on what else is compiled: the application's own sqlx may have it.
    #[tokio::test]
    async fn a_url_that_asks_for_tls_is_refused_unless_tls_was_built_in() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let pool = pool(&format!("postgres://localhost/shop?sslmode={mode}"));
            match pool {
                Ok(_) => assert!(sqlx_core::net::tls::available(), "{mode}"),
                Err(error) => {
                    assert!(!sqlx_core::net::tls::available(), "{mode}");
                    assert_eq!(error.kind(), BackendErrorKind::Config);
                    assert!(error.to_string().contains("postgres-rustls"), "{error}");
                }
            }
        }
        for mode in ["disable", "allow", "prefer"] {
            pool(&format!("postgres://localhost/shop?sslmode={mode}")).expect("it can do without");
        }
    }
}
