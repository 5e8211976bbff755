//! The Postgres backend of idem: records in a table beside the application's own tables.
//!
//! Owns the table, the statements and the atomicity of each operation. Decides nothing: the engine decides which request
//! runs, waits or is refused.
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
//! | claim, replay | `SELECT`, and `INSERT … ON CONFLICT DO NOTHING` if there is no row; a replay writes nothing |
//! | claim over an expired row | `UPDATE … WHERE expires_at <= clock_timestamp()`; of many concurrent ones, one succeeds |
//! | take over | `UPDATE … WHERE token = …`, after the lease is ended in the table of leases |
//! | renew | `INSERT … ON CONFLICT DO UPDATE` in the table of leases |
//! | record a step | the same, then `UPDATE … WHERE token = …` of the record, and `INSERT … ON CONFLICT DO UPDATE` of the step |
//! | park | `UPDATE … WHERE token = …`, or `DELETE` if there are no steps |
//! | complete, release | `UPDATE` or `DELETE … WHERE token = …` |
//! | wait | an advisory lock, and `LISTEN` to one channel per table, on one connection for all waiters of a process |
//! | expire | `DELETE` of a batch of rows, `FOR UPDATE SKIP LOCKED` |
//!
//! Every operation is one statement, and so atomic by itself, whatever the isolation level of the database. Only the server's
//! clock counts, read by `clock_timestamp()`: the time at which a row is written, not the time at which a transaction began.
//!
//! A renewal does not change the record's row, because a handler's transaction above READ COMMITTED cannot complete a record
//! that has changed after the transaction's snapshot. The exception is a claim with steps whose row is about to expire, about once
//! in half of its `ttl`: a process of a version from before steps does not look at the lease of such a row. For the same reason, waiters
//! do not write to the row. They use advisory locks:
//!
//! 1. A waiting process holds an advisory lock in shared mode. Its number is the first eight bytes of the record's id.
//! 2. The statement that ends the claim tries to take that lock. It sends a notification only if it cannot, because
//!    notifications serialize commits.
//! 3. A process holds up to 512 such locks. The waiters of further records look once a second.
//!
//! # Connections
//!
//! Claims, renewals, completions, releases and checks use connections that idem opens itself: 10 at most, or as many as
//! [`with_connections`](PostgresBackend::with_connections) sets. They are opened when they are needed, with the current connect
//! options of the application's pool, so that a password that is rotated by `pool.set_connect_options` reaches them.
//!
//! The state of the application's pool does not affect them: neither an exhausted pool, nor a transaction or a setting that was
//! left open on a connection. `after_connect` and the other hooks of the application's pool do not run for them. Waiters need one
//! more connection, which is opened when the first request waits.
//!
//! A connection is closed if it fails, if its server takes no writes any more, or if the server refuses a permission. The other
//! idle connections are closed with it. So a failover costs few requests or none.
//!
//! A handler's transaction ([`PostgresBackend::begin`]) uses a connection of the application's pool.
//!
//! # Poolers
//!
//! A pooler in transaction mode, such as `PgBouncer`, lends a server connection for one transaction. Through such a pooler:
//!
//! - Statements are sent as text, because prepared statements would be lost, or collide with those of other clients.
//! - `LISTEN` does not work, so waiters look once a second.
//!
//! The first connection detects a pooler by a setting that it sends at the start of the session, and that a pooler does not pass
//! on. If the pooler passes the setting on (for example by `track_extra_parameters` of `PgBouncer`), the pooler must support
//! prepared statements: `PgBouncer` 1.21 with `max_prepared_statements`.
//!
//! idem does not change how a handler sends its own statements in its transaction. With sqlx, `.persistent(false)` keeps them
//! within the transaction.
//!
//! # The tables
//!
//! [`PostgresBackend::migrate`] creates them. To create them by your own migrations, use [`MIGRATIONS`]:
//!
//! ```sql
#![doc = include_str!("../migrations/0001_records.sql")]
#![doc = include_str!("../migrations/0002_leases.sql")]
#![doc = include_str!("../migrations/0003_origin.sql")]
#![doc = include_str!("../migrations/0004_steps.sql")]
//! ```
//!
//! If two services use one database, give each a schema or a table of its own
//! ([`with_schema`](PostgresBackend::with_schema), [`with_table`](PostgresBackend::with_table)). Otherwise equal routes of the
//! two services are one operation, and one service replays the other's answers.
//!
//! # Permissions
//!
//! Once the tables exist, the role needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on `idem_records`,
//! `idem_records_leases` and `idem_records_steps`, and `USAGE` of their schema. The role is the one that the pool's connections log in with. A role that
//! `after_connect` or a handler sets is not used for the records.
//!
//! # Durability
//!
//! With `synchronous_commit` on, the default, records survive a crash of the server. With `synchronous_commit` off, a crash
//! loses up to the last three `wal_writer_delay`s (0.6 s by default): claims and outcomes of that time are absent, and their
//! retries run again. A failover to an asynchronous replica loses the records that had not reached the replica.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod by_hand;
mod claims;
mod connections;
mod error;
mod inspect;
mod joint;
mod migrations;
mod protocol;
mod record;
mod statements;
mod steps;
mod subscriber;
mod subscriptions;
mod sweeper;
mod table;
mod url;

pub use backend::PostgresBackend;
pub use joint::JointTransaction;
pub use migrations::MIGRATIONS;
/// The Postgres client whose pool [`PostgresBackend::new`] takes.
pub use sqlx;
