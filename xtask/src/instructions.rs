//! The instructions of one request, counted by callgrind and compared with those that are written down.
//!
//! Owns the baseline, `bench/instructions.tsv`: a count for each call, and the compiler that made the program, for
//! another compiler makes another one. A count is the difference of two runs, so that starting up is not in it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::commands::cargo;

/// Requests of the two runs.
const RUNS: [u32; 2] = [2_000, 4_000];

/// What a count may exceed its baseline by, in per cent: a hash map's seed decides where its records come to lie.
const TOLERANCE: u64 = 3;

const CALLS: [&str; 4] = [
    "bare, first request",
    "memory, first request",
    "bare, replay",
    "memory, replay",
];

/// Counts, prints, and compares with the baseline or, to `bless` them, writes the counts there.
pub(crate) fn measure(bless: bool) -> Result<(), String> {
    cargo(
        &[
            "build",
            "--release",
            "--package",
            "idem-bench",
            "--bin",
            "idem-bench-requests",
        ],
        &[],
    )?;
    let compiler = output(Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"))?;
    let compiler = compiler.trim();
    let mut counts = Vec::new();
    for call in CALLS {
        counts.push((call, each(call)?));
    }
    if bless {
        let mut lines = format!("compiler\t{compiler}\n");
        for (call, count) in &counts {
            let _infallible = writeln!(lines, "{call}\t{count}");
        }
        return fs::write(baseline(), lines).map_err(|error| format!("the baseline: {error}"));
    }
    let written = fs::read_to_string(baseline()).map_err(|error| format!("the baseline: {error}"))?;
    compare(&counts, &written, compiler)
}

/// Prints each count beside its baseline; an error where one has grown.
fn compare(counts: &[(&str, u64)], written: &str, compiler: &str) -> Result<(), String> {
    let known = |name: &str| {
        let mut lines = written.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(known, _)| *known == name).map(|(_, value)| value)
    };
    let is_comparable = known("compiler") == Some(compiler);
    let mut grown = Vec::new();
    println!("{:<24}{:>12}{:>12}", "instructions", "now", "baseline");
    for (call, count) in counts {
        let before: u64 = known(call).and_then(|count| count.parse().ok()).unwrap_or_default();
        println!("{call:<24}{count:>12}{before:>12}");
        if count * 100 > before * (100 + TOLERANCE) {
            grown.push(*call);
        }
    }
    match (is_comparable, grown.is_empty()) {
        (false, _) => println!(
            "not compared: the baseline was made by {}, this is {compiler}",
            known("compiler").unwrap_or("nobody")
        ),
        (true, true) => {}
        (true, false) => {
            return Err(format!(
                "more than {TOLERANCE} per cent above the baseline: {}; where that is meant, `cargo xtask instructions \
                 --bless`",
                grown.join("; ")
            ));
        }
    }
    Ok(())
}

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/instructions.tsv")
}

/// The instructions of one request of this kind.
fn each(call: &str) -> Result<u64, String> {
    let [few, many] = RUNS;
    let more = total(call, many)?.saturating_sub(total(call, few)?);
    Ok(more / u64::from(many - few))
}

/// The instructions of a run with so many requests.
fn total(call: &str, requests: u32) -> Result<u64, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let profile = folder.join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg("--quiet");
    valgrind.arg([OsStr::new("--callgrind-out-file="), profile.as_os_str()].join(OsStr::new("")));
    valgrind.arg(folder.join("release/idem-bench-requests"));
    output(valgrind.arg(call).arg(requests.to_string()))?;
    let profile = fs::read_to_string(&profile).map_err(|error| format!("{}: {error}", profile.display()))?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.ok_or_else(|| "callgrind has counted nothing".to_owned())
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{} could not be started: {error}", command.get_program().display()))?;
    if !output.status.success() {
        return Err(format!(
            "{} ended with {}: {}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "compiler\trustc 1\nbare, first request\t1000\n";

    #[test]
    fn what_has_grown_is_an_error_where_the_compiler_is_the_same() {
        let within = [("bare, first request", 1030)];
        assert!(compare(&within, WRITTEN, "rustc 1").is_ok());
        let beyond = [("bare, first request", 1031)];
        assert!(compare(&beyond, WRITTEN, "rustc 1").is_err());
        assert!(compare(&beyond, WRITTEN, "rustc 2").is_ok());
        assert!(compare(&[("another", 1)], WRITTEN, "rustc 1").is_err());
    }
}
