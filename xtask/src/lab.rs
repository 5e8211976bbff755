//! The fault lab: the engine's model test, and then processes and servers that are killed.
//!
//! Owns how the time is divided. What is tried and judged is in `idem-core/src/engine/model.rs` and `tests/src/lab`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::commands::cargo;

/// What the command was told.
pub(crate) struct Options {
    seconds: u64,
    seed: u64,
}

impl Options {
    /// Reads `--seconds <number>` and `--seed <number>`, in any order; without a seed it takes a new one.
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let (mut seconds, mut seed) = (None, None);
        for pair in words.chunks(2) {
            let (option, number) = match *pair {
                ["--seconds", number] => (&mut seconds, number),
                ["--seed", number] => (&mut seed, number),
                _ => return None,
            };
            *option = Some(number.parse().ok()?);
        }
        let seconds = seconds?;
        let seed = seed.unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_secs())
        });
        Some(Self { seconds, seed })
    }
}

/// Runs the model for a third of the time and the processes for the rest.
pub(crate) fn run(Options { seconds, seed }: Options) -> Result<(), String> {
    println!("seed {seed}");
    // Everything is built before the time begins.
    cargo(
        &["test", "--release", "--package", "idem-core", "--lib", "--no-run"],
        &[],
    )?;
    cargo(&["build", "--release", "--package", "idem-tests", "--bins"], &[])?;

    let model = [
        "test",
        "--release",
        "--package",
        "idem-core",
        "--lib",
        "--",
        "--nocapture",
        "whatever_happens_the_promise_holds",
    ];
    let seed = seed.to_string();
    let third = (seconds / 3).to_string();
    cargo(&model, &[("IDEM_SEED", &seed), ("IDEM_SECONDS", &third)])?;
    let rest = (seconds - seconds / 3).to_string();
    let lab = ["run", "--release", "--package", "idem-tests", "--bin", "lab", "--"];
    cargo(&[&lab[..], &["--seconds", &rest, "--seed", &seed]].concat(), &[])
}
