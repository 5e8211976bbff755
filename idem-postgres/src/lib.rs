//! The Postgres backend of idem: records in a table beside the application's own.
//!
//! Owns the table, the statements and the atomicity of each operation. Decides nothing: who runs, waits or is refused is
//! the engine's.
//!
//! ```no_run
//! use idem_postgres::PostgresBackend;
//! use idem_postgres::sqlx::PgPool;
//! use std::time::Duration;
//!
//! # async fn set_up() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = PgPool::connect("postgres://app@localhost/shop").await?;
//! let backend = PostgresBackend::new(pool).with_sweeper(Duration::from_mins(1));
//! backend.migrate().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | step | statement |
//! |---|---|
//! | claim | `SELECT`, which is all that a replay needs, and with it `INSERT … ON CONFLICT DO NOTHING` where nothing is there |
//! | claim over what has expired | `UPDATE … WHERE expires_at <= clock_timestamp()`, which one of many wins |
//! | take over | `UPDATE … WHERE token = … AND lease_until <= clock_timestamp()` |
//! | renew, complete, release | `UPDATE` or `DELETE … WHERE token = …` |
//! | wait | `LISTEN` to one channel a table, on a connection of its own for all waiters of a process |
//! | expire | `DELETE` of a batch of rows, `FOR UPDATE SKIP LOCKED` |
//!
//! Every operation is one statement, and so atomic by itself, whatever the isolation level of the database. Time is the
//! server's alone, read by `clock_timestamp()`: what counts is when a row is written, not when a transaction began.
//!
//! Telling waiters is what costs a Postgres most, for notifications put commits in a queue. So a waiter marks the row
//! that it waits for, and only the end of a marked row is told.
//!
//! # The pool
//!
//! The backend uses the application's own pool, a connection at a time and only for the length of a call; a pool that is
//! exhausted is an outage, which the engine answers within its deadline. Calls that wait for a connection pass it on to
//! each other, up to eight times before the pool gets it back, so `before_acquire` and `after_release` run, and the
//! connection is tried, once for all of those. Where the application's own transactions hold most of the pool, who waits
//! in the pool waits that much longer for each place in its queue.
//!
//! `LISTEN` uses one connection besides, opened when a request waits for the first time. It cannot go through a pooler
//! that lends a connection for a transaction, such as `PgBouncer` in that mode: waiters then look again when leases end.
//!
//! # The table
//!
//! [`PostgresBackend::migrate`] creates it. Who runs migrations of their own takes [`MIGRATIONS`]:
//!
//! ```sql
#![doc = include_str!("../migrations/0001_records.sql")]
//! ```
//!
//! # Permissions
//!
//! The least that a role needs on the table, once it is there: `SELECT`, `INSERT`, `UPDATE` and `DELETE`, and `USAGE` of
//! its schema.
//!
//! # Durability
//!
//! With `synchronous_commit` on, which is the default, what was recorded survives a crash of the server. Off, a crash
//! forgets up to the last three `wal_writer_delay`s (by default 0.6 s): claims and outcomes of that time are absent
//! afterwards, and their retries run again. A failover to a replica that is not synchronous forgets what had not reached
//! it.

mod backend;
mod connections;
mod error;
mod joint;
mod migrations;
mod protocol;
mod record;
mod statements;
mod subscriber;
mod subscriptions;
mod sweeper;
mod table;

pub use backend::PostgresBackend;
pub use joint::{EndError, EndKind, JointTransaction};
pub use migrations::MIGRATIONS;
/// The Postgres client whose pool [`PostgresBackend::new`] takes.
pub use sqlx;
