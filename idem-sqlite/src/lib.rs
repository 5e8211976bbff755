//! The SQLite backend of idem: durable records in one file, without a server.
//!
//! Owns the file, the statements and the atomicity of each operation. Decides nothing: the engine decides which request runs,
//! waits or is refused.
//!
//! ```
//! use idem_sqlite::SqliteBackend;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(&folder)?;
//! let backend = SqliteBackend::open("idem.db").await?;
//! # drop(backend);
//! # Ok(())
//! # }
//! ```
//!
//! # For one machine
//!
//! Any number of processes of one machine may open the file. Processes of several machines must not: locks and the shared memory of
//! the log do not reach other machines. A file on a network file system is refused where the system tells. For several machines,
//! keep the records in Redis or Postgres. Containers of one machine may share the file if they share the kernel.
//!
//! # Durability
//!
//! The database has a write-ahead log, and every commit reaches the disk before its call returns. So a claim or an outcome that was
//! acknowledged survives a crash of the process, of the machine and of its power, as far as the disk keeps what it has confirmed.
//! Calls that come together are committed together: with many requests at once, a request costs less than one wait for the disk.
//!
//! # Time
//!
//! Leases go by the boot clock: stepping the time of day lapses none, and after a reboot all have lapsed, because no owner has
//! survived. Records expire by the time of day: an answer that is kept for a day is there after a reboot. Where the system is not
//! Linux, leases go by the time of day too.
//!
//! # One writer
//!
//! SQLite has one writer at a time. A transaction of the application that writes makes all claims wait, of all processes, until it
//! ends; a claim that waits for longer than its deadline is answered with 503 `backend-unavailable`, and nothing is written.
//! Replays are reads, and do not wait.
//!
//! # Waiting
//!
//! A request that waits is woken at once if the claim ends in its own process. While requests wait, the process asks every 25 ms
//! whether the database has changed, which tells of claims that ended in other processes.
//!
//! # The table
//!
//! [`SqliteBackend::open`] and [`SqliteBackend::migrate`] create it. To create it by your own migrations, use [`MIGRATIONS`]:
//!
//! ```sql
#![doc = include_str!("../migrations/0001_records.sql")]
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod by_hand;
mod change;
mod clock;
mod connecting;
mod error;
mod inspect;
mod joint;
mod migrations;
mod readers;
mod record;
mod steps;
mod store;
mod table;
mod waiters;
mod writer;

pub use backend::SqliteBackend;
pub use joint::JointTransaction;
pub use migrations::MIGRATIONS;
/// The SQLite client whose pool [`SqliteBackend::new`] takes.
pub use sqlx;

#[cfg(test)]
mod tests;
