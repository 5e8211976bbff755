//! The fault lab: the engine's model test, and then processes and servers that are killed; or a siege, or consumers of messages.
//!
//! Owns how the time is divided. What is tried and judged is in `idem-core/src/engine/model.rs` and `tests/src/lab`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::commands::cargo;

const BACKENDS: [&str; 4] = ["redis", "cluster", "postgres", "sqlite"];

/// What the command was told.
pub(crate) struct Options {
    backend: &'static str,
    seconds: u64,
    seed: u64,
    /// What is played in the place of requests.
    scenario: Option<&'static str>,
}

impl Options {
    /// Reads `--siege` or `--broker`, and then `--seconds <number>`, `--seed <number>` and `--backend <name>`, in any order; without a seed it
    /// takes a new one, and without a backend Redis.
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let (scenario, words) = match words {
            ["--siege", words @ ..] => (Some("siege"), words),
            ["--broker", words @ ..] => (Some("broker"), words),
            words => (None, words),
        };
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
        if scenario == Some("siege") && backend == "sqlite" {
            return None;
        }
        let seed = seed.unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_secs())
        });
        Some(Self {
            backend,
            seconds,
            seed,
            scenario,
        })
    }
}

/// Runs the model for a third of the time and the processes for the rest; or the siege or the broker for all of it.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let Options { seconds, seed, .. } = *options;
    println!("seed {seed}");
    if let Some(scenario) = options.scenario {
        cargo(&BUILD, &[])?;
        return lab(&[scenario, options.backend], seconds, seed);
    }
    // Everything is built before the time begins.
    cargo(
        &["test", "--release", "--package", "idem-core", "--lib", "--no-run"],
        &[],
    )?;
    cargo(&BUILD, &[])?;

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
    let third = seconds / 3;
    let (first, for_long) = (seed.to_string(), third.to_string());
    cargo(&model, &[("IDEM_SEED", &first), ("IDEM_SECONDS", &for_long)])?;
    lab(&[options.backend], seconds - third, seed)
}

const BUILD: [&str; 5] = ["build", "--release", "--package", "idem-tests", "--bins"];

/// Runs the lab's binary.
fn lab(what: &[&str], seconds: u64, seed: u64) -> Result<(), String> {
    let run = ["run", "--release", "--package", "idem-tests", "--bin", "lab", "--"];
    let (seconds, seed) = (seconds.to_string(), seed.to_string());
    cargo(
        &[&run[..], what, &["--seconds", &seconds, "--seed", &seed]].concat(),
        &[],
    )
}
