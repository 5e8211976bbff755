//! Opening a connection.
//!
//! Owns the detection of a pooler and of the server's process. Does not own when a connection is opened, nor how many are:
//! that is the pool's choice.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions as _, PgConnection, Row as _};
use tokio::runtime::Handle;

use super::Lent;
use crate::error::code;
use crate::protocol::Route;

/// How a connection was opened.
#[derive(Clone)]
pub(super) struct Opened {
    /// The options of the application's pool at that time. If the pool has other options by now, the connection is not lent any
    /// more.
    pub(super) options: Arc<PgConnectOptions>,
    pub(super) route: Route,
    /// The server's process; `None` behind a pooler.
    pub(super) process: Option<Process>,
}

/// A server process, identified by its id and its start time, because ids are reused.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) id: i32,
    /// The start time in seconds, with a fraction.
    pub(super) started: String,
}

/// Opens a connection whose statements sqlx does not log. As text, a statement contains its values, and they may be the response of a
/// handler.
pub(super) async fn open(options: PgConnectOptions) -> sqlx::Result<PgConnection> {
    options.disable_statement_logging().connect().await
}

/// Opens the first connection and detects a pooler. The session starts with a setting that a pooler refuses or does not pass on.
pub(super) async fn find_route(options: &PgConnectOptions) -> sqlx::Result<(PgConnection, Route)> {
    const SETTING: &str = "idem.direct";
    /// The codes by which servers and poolers refuse the setting. Any other refusal has another cause.
    const NOT_TAKEN: [&str; 5] = ["08P01", "0A000", "22023", "42704", "42601"];
    let mut connection = match open(options.clone().options([(SETTING, "on")])).await {
        Err(error) if code(&error).is_some_and(|code| NOT_TAKEN.contains(&&*code)) => {
            return Ok((open(options.clone()).await?, Route::Pooled));
        }
        connected => connected?,
    };
    let setting = sqlx::raw_sql("SELECT true WHERE current_setting('idem.direct', true) = 'on'");
    let is_direct = setting.fetch_optional(&mut connection).await?.is_some();
    Ok((connection, if is_direct { Route::Direct } else { Route::Pooled }))
}

/// The server process of a connection.
pub(super) async fn process(connection: &mut PgConnection, route: Route) -> sqlx::Result<Option<Process>> {
    if route == Route::Pooled {
        return Ok(None);
    }
    let itself =
        "SELECT pid, extract(epoch FROM backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let row = sqlx::raw_sql(itself).fetch_optional(connection).await?;
    let read = |row: PgRow| {
        Ok(Process {
            id: row.try_get(0)?,
            started: row.try_get(1)?,
        })
    };
    row.map(read).transpose()
}

/// A connection that is being opened. If it is dropped, opening continues in the background.
pub(super) struct Opening(pub(super) Option<Pin<Box<dyn Future<Output = sqlx::Result<Lent>> + Send>>>);

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(opening) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(opening);
        }
    }
}
