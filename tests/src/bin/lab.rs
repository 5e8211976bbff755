//! The fault lab as a command: rounds of it until the time is over, and a table.
//!
//! `lab redis|cluster|postgres|sqlite --seconds N --seed S` starts with the round of that seed. With `--seconds 0` it runs that round alone.
//! `lab broker …` does the same with consumers of messages in the place of clients.
//! `lab siege redis|cluster|postgres --seconds N --seed S` besieges one process for so long.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use idem_tests::lab::{self, Backend, Measures, Size, Totals};

const SIZE: Size = Size {
    keys: 400,
    span: Duration::from_secs(15),
};

/// What is played.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Requests,
    Broker,
    Siege,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (scenario, rest) = match arguments[..] {
        ["siege", ref rest @ ..] => (Scenario::Siege, rest),
        ["broker", ref rest @ ..] => (Scenario::Broker, rest),
        ref rest => (Scenario::Requests, rest),
    };
    let is_possible = |backend| scenario != Scenario::Siege || backend != Backend::Sqlite;
    let Some((backend, seconds, seed)) = parse(rest).filter(|(backend, ..)| is_possible(*backend)) else {
        eprintln!("usage: lab [siege | broker] <redis | cluster | postgres> --seconds <number> --seed <number>");
        eprintln!("       lab [broker] sqlite --seconds <number> --seed <number>");
        return ExitCode::from(2);
    };
    // Cargo puts the binaries of a package into one folder.
    let Some(server) = std::env::current_exe().ok().map(|lab| lab.with_file_name("server")) else {
        eprintln!("lab: where is the server?");
        return ExitCode::FAILURE;
    };
    if scenario == Scenario::Siege {
        let report = lab::siege::run(&server, backend, Duration::from_secs(seconds), seed).await;
        println!("{report}");
        return judged(&report.violations);
    }
    let begun = Instant::now();
    let measures = match (scenario, backend, seconds) {
        (Scenario::Requests, Backend::Redis, 1..) => Some(Measures::take(&server).await),
        _ => None,
    };
    let totals = rounds(&server, scenario, backend, seed, begun, Duration::from_secs(seconds)).await;
    println!("\n{totals}");
    if let Some(measures) = measures {
        println!("{measures}");
    }
    judged(&totals.violations)
}

fn judged(violations: &[String]) -> ExitCode {
    match violations.len() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The backend, the seconds and the seed.
fn parse(arguments: &[&str]) -> Option<(Backend, u64, u64)> {
    let [backend, "--seconds", seconds, "--seed", seed] = arguments else {
        return None;
    };
    let is_named = |on: &Backend| on.name().to_lowercase() == *backend;
    let backend = Backend::ALL.into_iter().find(is_named)?;
    Some((backend, seconds.parse().ok()?, seed.parse().ok()?))
}

/// Runs the rounds of one seed after the other until the time is over; one at least.
async fn rounds(
    server: &Path,
    scenario: Scenario,
    backend: Backend,
    first: u64,
    begun: Instant,
    time: Duration,
) -> Totals {
    let mut totals = Totals::default();
    for seed in first.. {
        let round = match scenario {
            Scenario::Broker => lab::broker::round(server, backend, seed, SIZE).await,
            _ => lab::round(server, backend, seed, SIZE).await,
        };
        println!("seed {seed}: {}", round.summary());
        for violation in &round.violations {
            println!("{violation}");
        }
        if !round.violations.is_empty() {
            let what = if scenario == Scenario::Broker { "broker " } else { "" };
            let on = backend.name().to_lowercase();
            println!("replay: cargo run --release -p idem-tests --bin lab -- {what}{on} --seconds 0 --seed {seed}\n");
        }
        totals.add(round);
        if begun.elapsed() >= time {
            break;
        }
    }
    totals
}
