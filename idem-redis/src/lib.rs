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
//! | complete with more than 64 KiB | `SET key:p:token answer NX PX 60000` on a connection for large answers, then such a script for the record |
//! | replay more than 64 KiB | besides, `GET key:p:token` on the connection for large answers, shared by all who ask at the same time |
//! | wait | `SUBSCRIBE` (in a cluster `SSUBSCRIBE`) to one channel a key, on one connection for all waiters of a process |
//!
//! A record is one binary string under `idem:{operation:scope:key}`; see [`RecordKey`](idem_core::RecordKey) for the
//! part in braces, which is also the hash tag: in a cluster, all of a record is in one slot. Redis 7.0 or Valkey 8 is
//! needed for `SET … NX GET`.
//!
//! One server, a cluster and sentinels are all reached by a URL or a client of the application's own; see
//! [`RedisBackend::connect`] and [`RedisBackend::connect_with`], and [`RedisBackend::lazy`] for a service that starts before
//! its Redis.
//!
//! # Outages
//!
//! | Redis | requests | an outcome that waits to be recorded |
//! |---|---|---|
//! | is away, frozen, loading, read only, or down as a cluster | 503 | is recorded when it is back |
//! | refuses the password, the user or a permission, or has too many clients | 503 | is recorded when that is mended |
//! | has fewer replicas in step than `min-replicas-to-write`, or a disk that takes no snapshot | 503, replays too: `SET … NX GET` is a write | is recorded when that is mended |
//! | is full, under `noeviction` | 503, replays too | is recorded at once |
//! | is a cluster with a node that is silent or lost | 503 for the slots of that node alone | is recorded when a node has the slot |
//!
//! # Permissions
//!
//! The least a Redis user needs, for the default prefix; with `with_prefix("orders")`, `~orders:* &orders:*` take the place
//! of `~idem:* &idem:*`:
//!
//! ```text
//! ~idem:* &idem:* -@all +set +get +getrange +pttl +pexpire +del +evalsha +script|load +publish +subscribe +unsubscribe
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

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod check;
mod client;
mod cluster;
mod completions;
mod connection;
mod error;
#[cfg(fuzzing)]
mod fuzz;
mod large;
mod link;
mod pace;
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
