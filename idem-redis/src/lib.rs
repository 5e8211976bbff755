//! The Redis backend of idem: one plain command to claim or replay, one script to complete.
//!
//! Owns the layout of keys and values in Redis and the atomicity of each operation. Decides nothing: who runs, waits
//! or is refused is the engine's.
//!
//! | step | command |
//! |---|---|
//! | claim, replay | `SET key claim NX GET PX ttl+lease` |
//! | is the claim in the way live? | `PTTL key`: live while at least the claim's `ttl` is left |
//! | take over, renew, release | a script that compares the whole stored claim |
//! | complete | such a script, for all claims of a process that come to be completed at the same time; in a cluster for each |
//! | wait | `SUBSCRIBE` (in a cluster `SSUBSCRIBE`) to one channel a key, on one connection for all waiters of a process |
//!
//! A record is one binary string under `idem:{operation:scope:key}`; see [`RecordKey`](idem_core::RecordKey) for the
//! part in braces, which is also the hash tag: in a cluster, all of a record is in one slot. Redis 7.0 or Valkey 8 is
//! needed for `SET … NX GET`.
//!
//! One server, a cluster and sentinels are all reached by a URL or a client of the application's own; see
//! [`RedisBackend::connect`] and [`RedisBackend::connect_with`].
//!
//! # Permissions
//!
//! The least a Redis user needs, for the default prefix:
//!
//! ```text
//! ~idem:* &idem:* -@all +set +get +pttl +pexpire +del +evalsha +script|load +publish +subscribe +unsubscribe
//! ```
//!
//! In a cluster, besides:
//!
//! ```text
//! +cluster|slots +asking +ping +spublish +ssubscribe +sunsubscribe
//! ```
//!
//! Commands inside scripts are checked against the same list. `+info` lets the check at start see how the server is set
//! up; with `+ping` the server's log of denials stays free of the signs of life that waiters ask for.

mod apart;
mod backend;
mod check;
mod client;
mod cluster;
mod completions;
mod connection;
mod error;
#[cfg(fuzzing)]
mod fuzz;
mod link;
mod record;
mod scripts;
mod server;
mod subscriber;
mod subscriptions;
mod topology;

pub use backend::RedisBackend;
pub use client::RedisClient;
/// The Redis client whose types [`RedisClient`] is made from.
pub use redis;

/// The door for the targets in `fuzz`, and for `bench/benches`. Not part of the public interface.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::fuzz::read_and_write;
}
