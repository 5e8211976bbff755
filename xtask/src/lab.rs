//! The fault lab: the engine's model test, and then processes and servers that are killed.
//!
//! Owns how the time is divided. What is tried and judged is in `idem-core/src/engine/model.rs` and `tests/src/lab`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::commands::cargo;

const BACKENDS: [&str; 3] = ["redis", "cluster", "postgres"];

/// What the command was told.
pub(crate) struct Options {
    backend: &'static str,
    seconds: u64,
    seed: u64,
}

impl Options {
    /// Reads `--seconds <number>`, `--seed <number>` and `--backend <name>`, in any order; without a seed it takes a new one,
    /// and without a backend Redis.
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let (mut seconds, mut seed, mut backend) = (None, None, "redis");
        for pair in words.chunks(2) {
            let (option, number) = match *pair {
                ["--seconds", number] => (&mut seconds, number),
                ["--seed", number] => (&mut seed, number),
                ["--backend", named] => {
                    backend = BACKENDS.into_iter().find(|backend| *backend == named)?;
                    continue;
                }
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
        Some(Self { backend, seconds, seed })
    }
}

/// Runs the model for a third of the time and the processes for the rest.
pub(crate) fn run(Options { backend, seconds, seed }: Options) -> Result<(), String> {
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
    cargo(
        &[&lab[..], &[backend, "--seconds", &rest, "--seed", &seed]].concat(),
        &[],
    )
}
