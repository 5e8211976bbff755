//! The real binary as a child process, over real TCP.
//!
//! Every test has a folder and a free port of its own. No test needs a server other than those it starts.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed step is a failed test, in helpers too"
)]

mod client;
mod collector;
mod configuration;
mod dashboard;
mod demo;
mod document;
mod duplicates;
mod exposition;
mod health;
mod killed;
mod metrics;
mod mix;
mod orders;
mod process;
mod schemathesis;
mod shutdown;
mod tenants;
mod traces;
