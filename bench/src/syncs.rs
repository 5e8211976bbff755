//! How often a first request on SQLite waits for the disk: ours beside the lines of SQL that people write by hand.
//!
//! Owns the count, which is `strace`'s, and its table. Times are not reported: a process that is traced is slower.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::load::{Keys, Load};
use crate::measure::SMALL;
use crate::processes::{Service, measure};
use crate::sqlite::VARIANTS;

const CLIENTS: [u64; 3] = [1, 16, 64];

/// Of one load.
const TIME: Duration = Duration::from_secs(3);

/// The calls that return when the bytes of a file are on the disk.
const SYNCS: [&str; 2] = ["fsync", "fdatasync"];

/// Takes every count and prints the table.
pub(crate) async fn all() {
    println!(
        "{:<40}{:>10}{:>10}{:>14}",
        "first requests on SQLite", "requests", "syncs", "a request"
    );
    for (seed, clients) in (1..).zip(CLIENTS) {
        for variant in VARIANTS {
            let (requests, syncs) = once(variant, clients, seed).await;
            let [of, share] = [requests, syncs].map(|count| f64::from(u32::try_from(count).expect("a small number")));
            println!(
                "{:<24}{:<16}{requests:>10}{syncs:>10}{:>14.2}",
                format!("{clients} clients"),
                variant,
                share / of
            );
        }
    }
}

/// How many requests there were over a new file, and how often the service has asked for the disk.
async fn once(variant: &str, connections: u64, seed: u64) -> (u64, u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, counts) = (folder.path().join("bench.db"), folder.path().join("counts"));
    let service = Service::start_under(strace(&counts), variant, &file.display().to_string()).await;
    let load = Load {
        address: service.address,
        keys: Keys::Unique,
        connections,
        bytes: SMALL,
        time: TIME,
        seed,
    };
    let outcome = measure(&load).await;
    service.stop().await;
    (outcome.requests, read(&counts))
}

/// Runs the program whose arguments follow, and writes how often it has called for the disk into the file.
fn strace(counts: &Path) -> Command {
    let mut strace = Command::new("strace");
    // Other calls do not stop the process. Signals end strace too, which it would ignore otherwise.
    strace.args([
        "-f",
        "--seccomp-bpf",
        "--interruptible=2",
        "-c",
        "-e",
        &format!("trace={}", SYNCS.join(",")),
    ]);
    strace.arg("-o").arg(counts);
    strace
}

/// The sum of the counts in a table of strace's, whose columns are share, seconds, microseconds, calls, errors if there
/// are any, and the name.
fn read(counts: &Path) -> u64 {
    let table = std::fs::read_to_string(counts).expect("strace has written it");
    let calls = table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let is_sync = columns.last().is_some_and(|name| SYNCS.contains(name));
        is_sync.then(|| columns[3].parse::<u64>().expect("a count"))
    });
    calls.sum()
}
