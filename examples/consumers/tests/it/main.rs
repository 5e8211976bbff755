//! The programs on real servers, as processes that are killed.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cron;
mod pages;
mod program;
mod redis_streams;
mod sqs;
