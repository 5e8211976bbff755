//! A shipping service whose orders are safe to retry.
//!
//! This file owns the command line and the exit codes: 0 when all went well, 1 when something failed, 2 for arguments
//! it does not know. What the commands do is in [`serve`] and [`demo`].

mod app;
mod config;
mod db;
mod demo;
mod document;
mod error;
mod health;
mod metrics;
mod operators;
mod orders;
mod serve;
mod tenant;
mod traces;

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::Config;
use crate::traces::Traces;

const USAGE: &str = "usage: shipping [demo | --help]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str()).collect();
    let result = match arguments[..] {
        [] => run_service().await,
        [Some("demo")] => {
            // The story is on stdout; the service's own log would run into it.
            log_from(LevelFilter::ERROR, None);
            run_demo().await
        }
        // Not for people, so the usage is silent about it.
        [Some("demo"), Some(demo::SECOND)] => {
            log_from(LevelFilter::ERROR, None);
            run_second().await
        }
        [Some("--help" | "-h")] => {
            help();
            Ok(())
        }
        _ => {
            let _ = writeln!(io::stderr(), "{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

async fn run_service() -> Result<(), Box<dyn Error>> {
    let (traces, fault) = match Traces::from_env() {
        Ok(traces) => (traces, None),
        Err(fault) => (None, Some(fault)),
    };
    log_from(LevelFilter::INFO, traces.as_ref());
    if let Some(fault) = fault {
        tracing::warn!("{fault}: no traces are made");
    }
    let served = serve::until_stopped(Config::from_env()?).await;
    if let Some(traces) = traces {
        // It waits on this thread, of which the runtime has no need any more.
        traces.flush();
    }
    Ok(served?)
}

async fn run_demo() -> Result<(), Box<dyn Error>> {
    Ok(demo::run(Config::from_env()?).await?)
}

async fn run_second() -> Result<(), Box<dyn Error>> {
    Ok(demo::serve_second(Config::from_env()?).await?)
}

/// Logs to stderr, from `level` on where `RUST_LOG` does not say otherwise; spans go to `traces`, whatever is logged.
fn log_from(level: LevelFilter, traces: Option<&Traces>) {
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    let log = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_filter(filter);
    tracing_subscriber::registry()
        .with(log)
        .with(traces.map(Traces::layer))
        .init();
}

fn help() {
    let mut out = io::stdout();
    let _ = writeln!(
        out,
        "{USAGE}\n\n  (nothing)  serve until Ctrl-C or SIGTERM\n  demo       tell what retries do, with and without \
         idempotency; with {}, across two processes\n\nenvironment:",
        config::REDIS_URL.name
    );
    for variable in config::VARIABLES {
        let default = variable.default.unwrap_or("not set");
        let _ = writeln!(out, "  {:<28} {} [{default}]", variable.name, variable.meaning);
    }
}

/// Says what failed and why, leaving out causes that the line before has said already.
fn report(error: &dyn Error) {
    let mut err = io::stderr();
    let mut said = error.to_string();
    let _ = writeln!(err, "error: {said}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.ends_with(&text) {
            let _ = writeln!(err, "  caused by: {text}");
            said = text;
        }
        cause = error.source();
    }
}
