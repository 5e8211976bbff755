//! What the integration tests share: a service as a user would write it, servers as child processes, a client.
//!
//! Owns set-up and tear-down; holds no test. Everything started here is stopped on drop, also when a test panics.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::panic,
    reason = "what cannot be set up fails the test that asked for it"
)]

mod app;
mod certificates;
mod client;
mod disk;
pub mod lab;
mod log;
mod openapi;
mod pgbouncer;
mod postgres_server;
mod process;
mod proxy;
mod redis_cluster;
mod redis_server;
pub mod rolling;
/// Pages of the repository, so that their code is compiled. The documentation of no published crate includes them.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../idem-axum/README.md")]
    mod axum_readme {}
    #[doc = include_str!("../../docs/layers.md")]
    mod layers {}
    #[doc = include_str!("../../README.md")]
    mod readme {}
}
mod sentinels;
mod service;
mod sqlite_file;
mod stepped_clock;
mod strace;
mod tripwire;

pub use app::{App, Order, Tenant, router};
pub use certificates::Certificates;
pub use client::{Answer, Call, Client, OTHER_TENANT, TENANT};
pub use disk::Disk;
pub use log::Log;
pub use openapi::validate_openapi;
pub use pgbouncer::PgBouncer;
pub use postgres_server::PostgresServer;
pub use process::{Process, Program};
pub use proxy::Proxy;
pub use redis_cluster::{RedisCluster, until};
pub use redis_server::RedisServer;
pub use sentinels::Sentinels;
pub use service::Service;
pub use sqlite_file::SqliteFile;
pub use stepped_clock::SteppedClock;
pub use strace::Strace;
pub use tripwire::Tripwire;

/// How long a test may take before it counts as hanging; far above what any takes.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

/// Runs a test to its end; one that hangs fails.
pub async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, test).await.expect("the test hangs")
}

/// Expands to each of the named `async fn(Service)` as a test on every backend, with `routes` beside the usual ones.
#[macro_export]
macro_rules! on_every_backend {
    ($($test:ident)*) => {
        $crate::on_every_backend! { routes: ::axum::Router::new(); $($test)* }
    };
    (routes: $routes:expr; $($test:ident)*) => {
        mod memory {
            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::in_time(super::$test($crate::Service::memory($routes).await)).await;
                }
            )*
        }
        mod redis {
            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::in_time(super::$test($crate::Service::redis($routes).await)).await;
                }
            )*
        }
        mod postgres {
            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::in_time(super::$test($crate::Service::postgres($routes).await)).await;
                }
            )*
        }
        mod sqlite {
            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::in_time(super::$test($crate::Service::sqlite($routes).await)).await;
                }
            )*
        }
    };
}
