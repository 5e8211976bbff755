//! The consumer as child processes, against a real `nats-server`.
//!
//! Every test has a broker, a carrier and records of its own.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed step is a failed test, in helpers too"
)]

mod acknowledgements;
mod aside;
mod demo;
mod journal;
mod killed;
mod long;
mod scene;
