//! A rolling deploy that brings durable steps, as a command: every case on every server, and a table.
//!
//! `rolling <path>`: the path is the binary `rolling-service` of the old version. That of this version is beside this binary.

use std::process::ExitCode;

use idem_tests::rolling::{self, Versions};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [old] = &arguments[..] else {
        eprintln!("usage: rolling <the old version's rolling-service>");
        return ExitCode::from(2);
    };
    let Ok(this) = std::env::current_exe() else {
        eprintln!("rolling: where is the service?");
        return ExitCode::FAILURE;
    };
    let versions = Versions {
        old: old.into(),
        new: this.with_file_name("rolling-service"),
    };
    let report = rolling::run(versions).await;
    println!("\n{report}");
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
