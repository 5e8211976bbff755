//! Takes the first programs of the README and the tutorial from their pages, so that tests run what a newcomer copies.
//!
//! Each keeps its records in the Redis at `BACKEND_URL`, listens on a free port, and says when it is at work on an order,
//! which takes two seconds. Nothing else is changed.

#![allow(clippy::expect_used, reason = "a page without its program stops the build")]

use std::path::Path;
use std::{env, fs};

/// A page, and where its handler is at work: the orders of the README take no time of their own.
const PROGRAMS: [(&str, &str, (&str, &str)); 2] = [
    (
        "readme.rs",
        "../README.md",
        (
            "    let shipped = ",
            "    println!(\"at work\");\n    tokio::time::sleep(std::time::Duration::from_secs(2)).await;\n    let shipped = ",
        ),
    ),
    (
        "tutorial.rs",
        "../idem-axum/src/tutorial.md",
        ("    let number = ", "    println!(\"at work\");\n    let number = "),
    ),
];

/// What each page has once, and what stands for it.
const CHANGES: [(&str, &str); 3] = [
    (
        "use idem_axum::{Idempotency, MemoryBackend, ",
        "use idem_axum::{Idempotency, RedisBackend, ",
    ),
    (
        "MemoryBackend::new()",
        "RedisBackend::connect(&std::env::var(\"BACKEND_URL\").expect(\"it is set\")).await.expect(\"it answers\")",
    ),
    ("127.0.0.1:3000", "127.0.0.1:0"),
];

fn main() {
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    for (program, page, at_work) in PROGRAMS {
        println!("cargo::rerun-if-changed={page}");
        let text = fs::read_to_string(page).expect("the page is there");
        fs::write(Path::new(&out).join(program), program_of(&text, page, at_work)).expect("the folder is ours");
    }
}

/// The first program of a page, changed.
fn program_of(text: &str, page: &str, at_work: (&str, &str)) -> String {
    let (_, block) = text.split_once("```rust,no_run\n").expect("the page has a program");
    let (program, _) = block.split_once("```").expect("the block ends");
    let mut program = program.to_owned();
    for (on_the_page, instead) in CHANGES.into_iter().chain([at_work]) {
        let count = program.matches(on_the_page).count();
        assert_eq!(count, 1, "{page}: `{on_the_page}`");
        program = program.replace(on_the_page, instead);
    }
    program
}
