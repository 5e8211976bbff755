//! What compiles under the attribute and what does not: one file a case, named for it.
//!
//! What passes is a module of this program, so that it is compiled once, runs, and is linted as everything else is. What
//! must have a crate of its own is `renamed`. What fails is compiled case by case, with what the compiler says beside it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unused_async,
    reason = "a test fails by panicking, and a handler is async"
)]

mod fail;
mod pass;
