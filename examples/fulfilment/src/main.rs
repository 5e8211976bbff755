//! A consumer on NATS `JetStream` that ships each order once.
//!
//! This file owns the command line and the exit codes: 0 when all went well, 1 when something failed, 2 for arguments it does not know.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::thread;

use fulfilment::config::{self, Config};
use fulfilment::worker::CONSUME;
use fulfilment::{consumer, demo};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const USAGE: &str = "usage: fulfilment demo | consume | --help";

#[tokio::main]
async fn main() -> ExitCode {
    log();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_str()).collect();
    let result = match arguments[..] {
        [Some("demo")] => show().await,
        [Some(CONSUME)] => consume().await,
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

async fn show() -> Result<(), Box<dyn Error>> {
    tokio::select! {
        shown = demo::run() => Ok(shown?),
        // Ends here, so that the servers are stopped and their folders removed.
        stop = tokio::signal::ctrl_c() => Ok(stop?),
    }
}

/// Consumes until stdin is closed, which it is also when the process that started this one was killed.
async fn consume() -> Result<(), Box<dyn Error>> {
    let (open, closed) = oneshot::channel::<()>();
    // A thread and no task: nothing ends a read of stdin, and the runtime would wait for it where starting failed.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(open);
    });
    let stop = async {
        let _ = closed.await;
    };
    Ok(consumer::consume(Config::from_env()?, stop).await?)
}

/// To stderr, because a consumer process says on stdout what becomes of its deliveries.
fn log() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::ERROR.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

fn help() {
    let mut out = io::stdout();
    let _ = writeln!(
        out,
        "{USAGE}\n\n  demo     ship orders under kills and lost acknowledgements, and replay them\n  consume  ship orders until \
         stdin is closed\n\nenvironment:"
    );
    for variable in config::VARIABLES {
        let default = variable.default.unwrap_or("not set");
        let _ = writeln!(out, "  {:<24} {} [{default}]", variable.name, variable.meaning);
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
