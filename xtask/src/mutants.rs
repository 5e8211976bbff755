//! Mutants of the crates that answer over HTTP: what no test notices.
//!
//! Owns which tests are asked. `cargo mutants` changes one thing at a time; the tests that take the least time are asked
//! first, and each next ones only about what is left. `docs/mutants.md` explains what survives all of them.

use crate::commands;

/// The crate's own tests.
const ALONE: [&str; 1] = ["--cargo-arg=--lib"];
/// One run of the tables of cases.
const CASES: [&str; 7] = [
    "--iterate",
    "--test-package",
    "idem-tests",
    "--cargo-arg=--test=it",
    "--",
    "--",
    "contract::every_case_holds_in_memory_over_http_1",
];
/// Every other test that is about what is on the wire.
const ON_THE_WIRE: [&str; 27] = [
    "--iterate",
    "--test-package",
    "idem-tests",
    "--cargo-arg=--test=it",
    "--",
    "--",
    "bad_input",
    "broken_backends",
    "contract",
    "defaults",
    "disconnects",
    "duplicates",
    "engines",
    "generated_responses",
    "handlers",
    "layered",
    "leaks",
    "logs",
    "methods",
    "mismatches",
    "options",
    "outer_layers",
    "problem_examples",
    "replays",
    "responses",
    "settings",
    "transactions",
];

/// Tries the mutants of the named files, or of both crates.
pub(crate) fn run(files: &[&str]) -> Result<(), String> {
    let files: Vec<_> = files.iter().flat_map(|file| ["--file", file]).collect();
    let mutants = [
        "mutants",
        "--package",
        "idem-http",
        "--package",
        "idem-axum",
        "--no-shuffle",
        "--timeout",
        "120",
    ];
    // What only fuzz targets and debuggers see, and what cannot be written in Rust.
    let left_out = [
        "--exclude",
        "**/fuzz.rs",
        "--exclude-re",
        "fmt::Debug|HandlerResult::|MutexGuard::|Poll::(new|from_iter)",
    ];
    let asked = |tests: &[&'static str]| [&mutants[..], &left_out, &files, tests].concat();
    // That some survive these is expected.
    commands::cargo_to_its_end(&asked(&ALONE))?;
    commands::cargo_to_its_end(&asked(&CASES))?;
    commands::cargo(&asked(&ON_THE_WIRE), &[])
}
