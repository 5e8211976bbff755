//! The project's own commands: `cargo xtask setup`, `test`, `lint`, and those that measure.
//!
//! Owns which commands make up a check, so that a contributor and a machine run the same ones. Needs nothing but
//! cargo, so that it runs on a fresh clone.

mod commands;
mod deny;
mod dependencies;
mod instructions;
mod lab;
mod links;
mod macro_cost;
mod manifests;
mod minimal_versions;
mod mutants;
mod newcomer;
mod package;
mod pages;
mod rolling_deploy;
mod servers;
mod sizes;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

commands:
  setup   finds what tests start, or installs it by the system's package manager
  lint    formatting, clippy, documentation and the links in it, with warnings denied; dependencies between crates; licences,
          versions and sources of other dependencies; sizes; and package
  sizes   the lengths of the runtime crates' files and functions; fails where one is over its limit
  test    setup, then every test of the workspace, documentation included, then newcomer
  package   packages the crates that are published, and compiles them from their packages alone
  minimal-versions  compiles the crates that are published with the lowest versions of dependencies that they allow
  newcomer  runs the commands of the README and the tutorial on a clean checkout of HEAD, as a new user does
  lab     [--siege | --broker] --seconds <number> [--seed <number>] [--backend redis|cluster|postgres|sqlite]: the fault lab for so
          long, or a siege by hostile clients (not on sqlite), or consumers of messages, and a table of what came of it
  rolling-deploy  [--from <revision>]: old and new processes on the same records, in a deploy that brings durable steps, and a
          table of what came of it; the old ones are built on that commit, or on the last one without steps
  spec    explores every state that the specification and its owners can reach within their bounds, and prints the figures
          --mutants: prints the shortest way on which each wrong specification breaks its rule
  bench   [--quick]: idem beside a bare handler and two hand-written schemes, in one run
          --growth: with more records, waiters and threads
          --postgres [--quick]: on Postgres, beside hand-written SQL
          --sqlite [--quick]: on SQLite, beside hand-written SQL
          --sqlite --syncs: how often a request on SQLite waits for the disk, by strace
          --tasks [--quick]: tasks without HTTP, beside the function alone and beside hand-written Redis commands
          --inspect: an operator's lists of a million records on Redis, and claims meanwhile
  parts   micro benchmarks of what a request goes through
  instructions [--bless]: those of one request, by callgrind, against bench/instructions.tsv; needs valgrind
  mutants [file]...: changes idem-http and idem-axum, or the files of them, and lists what no test notices; needs cargo-mutants
  macro-cost  what the attribute costs in compile time and machine code, as a table";

/// What the benchmark understands.
const BENCHES: [&[&str]; 11] = [
    &[],
    &["--quick"],
    &["--growth"],
    &["--postgres"],
    &["--postgres", "--quick"],
    &["--sqlite"],
    &["--sqlite", "--quick"],
    &["--sqlite", "--syncs"],
    &["--tasks"],
    &["--tasks", "--quick"],
    &["--inspect"],
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["setup"] => servers::setup(),
        ["lint"] => links::check()
            .and_then(|()| dependencies::check())
            .and_then(|()| deny::check())
            .and_then(|()| sizes::check())
            .and_then(|()| commands::lint())
            .and_then(|()| package::check()),
        ["minimal-versions"] => minimal_versions::check(),
        ["package"] => package::check(),
        ["test"] => servers::setup()
            .and_then(|()| commands::test())
            .and_then(|()| newcomer::walk()),
        ["newcomer"] => servers::setup().and_then(|()| newcomer::walk()),
        ["sizes"] => sizes::check(),
        ["macro-cost"] => macro_cost::measure(),
        ["lab", ref options @ ..] => {
            let Some(options) = lab::Options::parse(options) else {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            };
            servers::setup().and_then(|()| lab::run(&options))
        }
        ["rolling-deploy", ref options @ ..] => {
            let Some(options) = rolling_deploy::Options::parse(options) else {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            };
            rolling_deploy::try_out(&options)
        }
        ["spec"] => commands::spec(&[]),
        ["spec", "--mutants"] => commands::spec(&["--mutants"]),
        ["bench", ref options @ ..] if BENCHES.contains(&options) => {
            servers::setup().and_then(|()| commands::bench(options))
        }
        ["parts"] => commands::parts(),
        ["instructions"] => instructions::measure(false),
        ["instructions", "--bless"] => instructions::measure(true),
        ["mutants", ref files @ ..] => servers::setup().and_then(|()| mutants::run(files)),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
