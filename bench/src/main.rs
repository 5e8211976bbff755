//! idem beside a bare handler and two hand-written schemes, in one run.
//!
//! Without arguments it starts what it needs, measures, prints a table and writes `target/bench`; see `cargo xtask
//! bench`. With `serve` or `load` it is one of the processes that it starts itself.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot be taken is not reported"
)]

mod figures;
mod growth;
#[cfg(feature = "inspect")]
mod inspect;
mod load;
mod measure;
mod plot;
#[cfg(feature = "postgres")]
mod postgres;
mod processes;
mod report;
mod serve;
#[cfg(feature = "postgres")]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod syncs;
#[cfg(feature = "tasks")]
mod tasks;

use std::process::ExitCode;

const USAGE: &str =
    "usage: idem-bench [--quick | --growth | --postgres [--quick] | --sqlite [--quick | --syncs] | --tasks [--quick] | --inspect]
       idem-bench list <url>
       idem-bench serve <variant> <url>
       idem-bench load <address> <keys> <connections> <bytes> <milliseconds> <seed>";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => measure::all(measure::Effort::FULL).await,
        ["--quick"] => measure::all(measure::Effort::QUICK).await,
        ["--growth"] => growth::all().await,
        #[cfg(feature = "postgres")]
        ["--postgres"] => postgres::all(measure::Effort::FULL).await,
        #[cfg(feature = "postgres")]
        ["--postgres", "--quick"] => postgres::all(measure::Effort::QUICK).await,
        #[cfg(feature = "sqlite")]
        ["--sqlite"] => sqlite::all(measure::Effort::FULL).await,
        #[cfg(feature = "sqlite")]
        ["--sqlite", "--quick"] => sqlite::all(measure::Effort::QUICK).await,
        #[cfg(feature = "sqlite")]
        ["--sqlite", "--syncs"] => syncs::all().await,
        #[cfg(feature = "tasks")]
        ["--tasks"] => tasks::all(measure::Effort::FULL).await,
        #[cfg(feature = "tasks")]
        ["--tasks", "--quick"] => tasks::all(measure::Effort::QUICK).await,
        #[cfg(feature = "inspect")]
        ["--inspect"] => inspect::all().await,
        #[cfg(feature = "inspect")]
        ["list", url] => inspect::list(url).await,
        ["serve", variant, url] => serve::run(variant, url).await,
        ["load", ref rest @ ..] => match load::Load::parse(rest) {
            Some(load) => load.run().await,
            None => return usage(),
        },
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
