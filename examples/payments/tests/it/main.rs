//! A payment survives its process and its provider: it is made once, whatever fails.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod failures;
mod killed;
mod provider;
mod scene;
mod service;
