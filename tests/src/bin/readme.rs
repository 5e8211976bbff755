//! The first program of the README, as `build.rs` takes it from the page.

#![allow(
    clippy::expect_used,
    clippy::pedantic,
    missing_docs,
    unused_qualifications,
    reason = "the page is written for readers"
)]

include!(concat!(env!("OUT_DIR"), "/readme.rs"));
