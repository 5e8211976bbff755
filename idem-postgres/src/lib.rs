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
//! | take over | `UPDATE … WHERE token = …`, once the lease is ended in the table of leases |
//! | renew | `INSERT … ON CONFLICT DO UPDATE` in the table of leases |
//! | complete, release | `UPDATE` or `DELETE … WHERE token = …` |
//! | wait | an advisory lock, and `LISTEN` to one channel a table, on one connection for all waiters of a process |
//! | expire | `DELETE` of a batch of rows, `FOR UPDATE SKIP LOCKED` |
//!
//! Every operation is one statement, and so atomic by itself, whatever the isolation level of the database. Time is the
//! server's alone, read by `clock_timestamp()`: what counts is when a row is written, not when a transaction began.
//!
//! A renewal does not touch the record's row: a handler's transaction above READ COMMITTED could not complete a record that
//! changed after its snapshot. For the same reason waiters leave no mark in it. A waiter holds an advisory lock, in shared
//! mode, whose number is the first eight bytes of the record's id. Whoever ends the claim tries to take that lock, and
//! notifies only where it cannot, for notifications put commits in a queue. A process holds up to 512 such locks; the waiters
//! of further records look once a second.
//!
//! # Connections
//!
//! Claims, renewals, completions, releases and checks go over a few connections of idem's own: 10 at most, or as many as
//! [`with_connections`](PostgresBackend::with_connections) sets. They are opened when they are needed, with the connect options
//! that the application's pool has at that moment, so that `pool.set_connect_options` with a rotated password reaches them.
//! Nothing that happens to the application's pool reaches them: neither a pool that is exhausted, nor a transaction or a setting
//! that somebody has left on a connection. `after_connect` and the other hooks of the application's pool do not run for them.
//! Waiters need one connection more, opened when a request waits for the first time.
//!
//! A connection that fails is closed, and so is one that leads to a server which takes no writes any more, or that was
//! refused a permission. The other idle connections are closed with it. So a failover costs few requests or none.
//!
//! A handler's transaction ([`PostgresBackend::begin`]) begins on a connection of the application's pool.
//!
//! # Poolers
//!
//! Through a pooler that lends a connection for one transaction, such as `PgBouncer` in transaction mode, statements are sent
//! as text: prepared statements would get lost, or meet those of others. The first connection finds out whether there is a
//! pooler, by a setting that a session begins with and a pooler does not pass on. `LISTEN` does not work through it, so waiters
//! look once a second. A pooler that passes the setting on (`track_extra_parameters` of `PgBouncer`, say) has to know prepared
//! statements: `PgBouncer` 1.21 with `max_prepared_statements`. A handler's own statements in its transaction are its own
//! concern: with sqlx, `.persistent(false)` keeps them within the transaction.
//!
//! # The tables
//!
//! [`PostgresBackend::migrate`] creates them. Who runs migrations of their own takes [`MIGRATIONS`]:
//!
//! ```sql
#![doc = include_str!("../migrations/0001_records.sql")]
#![doc = include_str!("../migrations/0002_leases.sql")]
//! ```
//!
//! Two services on one database need a schema or a table each
//! ([`with_schema`](PostgresBackend::with_schema), [`with_table`](PostgresBackend::with_table)), or equal routes are one
//! operation, and one service replays the other's answers.
//!
//! # Permissions
//!
//! The least that a role needs, once the tables are there: `SELECT`, `INSERT`, `UPDATE` and `DELETE` on `idem_records` and
//! `idem_records_leases`, and `USAGE` of their schema. It is the role that the pool's connections log in by: a role that
//! `after_connect` or a handler sets does not reach the records.
//!
//! # Durability
//!
//! With `synchronous_commit` on, which is the default, what was recorded survives a crash of the server. Off, a crash
//! forgets up to the last three `wal_writer_delay`s (by default 0.6 s): claims and outcomes of that time are absent
//! afterwards, and their retries run again. A failover to a replica that is not synchronous forgets what had not reached
//! it.

#![cfg_attr(docsrs, feature(doc_cfg))]

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
