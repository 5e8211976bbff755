//! Runs other programs, saying which.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::manifests::published;
use crate::servers;

/// What is checked without running it.
pub(crate) fn lint() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "--deny",
            "warnings",
        ],
        &[],
    )?;
    features()?;
    let strict = [("RUSTDOCFLAGS", "--deny warnings")];
    cargo(
        &[
            "doc",
            "--workspace",
            "--no-deps",
            "--all-features",
            "--document-private-items",
        ],
        &strict,
    )
}

/// Each feature of what users add has to compile without the others.
fn features() -> Result<(), String> {
    const DENY: [&str; 3] = ["--", "--deny", "warnings"];
    const OF_TASKS: [&str; 5] = ["macros", "metrics", "postgres", "redis", "sqlite"];
    // Without any, and without another crate that could turn on what a dependency lacks.
    let least = ["clippy", "--package", "idem-axum", "--no-default-features"];
    cargo(&[&least[..], &DENY].concat(), &[])?;
    // With the other crates, so that dependencies have the same features in each call and are checked once.
    let mut crates = published()?;
    // The command has TLS always, and would turn it on for the others.
    crates.retain(|name| name != "idem-cli");
    let mut together = vec!["clippy", "--no-default-features"];
    together.extend(crates.iter().flat_map(|name| ["--package", name]));
    for feature in [
        "aide",
        "macros",
        "metrics",
        "postgres",
        "postgres-rustls",
        "redis",
        "redis-rustls",
        "sqlite",
        "testing",
        "typed-routing",
        "utoipa",
    ] {
        // `idem-task` has some of them, too.
        let features = if OF_TASKS.contains(&feature) {
            format!("idem-axum/{feature},idem-task/{feature}")
        } else {
            format!("idem-axum/{feature}")
        };
        cargo(&[&together[..], &["--features", &features], &DENY].concat(), &[])?;
    }
    Ok(())
}

/// What of the integration tests is about a server: deployments, faults, waiting and the contract. The rest needs one and
/// does not depend on which.
const ON_SERVERS: [&str; 9] = [
    "cluster::",
    "conformance::redis",
    "crashes::",
    "lab::no_rule_is_broken_where_a_cluster",
    "lab::no_rule_is_broken_where_redis",
    "outages::",
    "redis::",
    "sentinels::",
    "waiting::",
];

/// Every test of the workspace. A documentation test is a test like any other, so one call runs all of them; those that
/// are about a server then run on another one.
pub(crate) fn test() -> Result<(), String> {
    cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"], &[])?;
    let valkey = servers::valkey()?;
    let valkey = valkey.display().to_string();
    // Of the whole workspace, for what was compiled for the call above: with one package, dependencies have other features and
    // are compiled again. The other packages have no test of these names.
    let integration = ["test", "--workspace", "--all-features", "--test", "it", "--"];
    cargo(
        &[&integration[..], &ON_SERVERS].concat(),
        &[("IDEM_REDIS_SERVER", &valkey)],
    )
}

/// The comparison, where speed is the point.
pub(crate) fn bench(options: &[&str]) -> Result<(), String> {
    let features: &[&str] = match options {
        ["--postgres", ..] => &["--features", "postgres"],
        ["--sqlite", ..] => &["--features", "sqlite"],
        ["--tasks", ..] => &["--features", "tasks"],
        ["--inspect", ..] => &["--features", "inspect"],
        _ => &[],
    };
    let package = ["--release", "--package", "idem-bench"];
    cargo(&[&["build"], &package[..], &["--bins"], features].concat(), &[])?;
    let bench = ["--bin", "idem-bench"];
    cargo(
        &[&["run"], &package[..], &bench, features, &["--"], options].concat(),
        &[],
    )
}

/// The exploration of the specification, or of its mutants.
pub(crate) fn spec(options: &[&str]) -> Result<(), String> {
    let example = [
        "run",
        "--release",
        "--package",
        "idem-core",
        "--features",
        "conformance",
        "--example",
        "spec",
        "--",
    ];
    cargo(&[&example[..], options].concat(), &[])
}

/// Micro benchmarks, by the door that fuzz targets go through; in a folder of their own, for it is another build of all.
pub(crate) fn parts() -> Result<(), String> {
    let door = [("RUSTFLAGS", "--cfg fuzzing"), ("CARGO_TARGET_DIR", "target/parts")];
    cargo(&["bench", "--package", "idem-bench", "--bench", "parts"], &door)
}

/// Runs cargo to its success.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    run(Command::new(program())
        .args(arguments)
        .envs(environment.iter().copied()))
}

/// Runs cargo on the workspace in another folder to its success.
pub(crate) fn cargo_in(
    folder: &Path,
    arguments: &[&str],
    target: &Path,
    environment: &[(&str, &str)],
) -> Result<(), String> {
    run(Command::new(program())
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target)
        .envs(environment.iter().copied()))
}

/// Runs cargo to its success, for what it prints to its standard output.
pub(crate) fn output_of_cargo(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program());
    command.args(arguments).stderr(Stdio::inherit());
    eprintln!("$ {}", line(&command));
    let output = command
        .output()
        .map_err(|error| format!("`{}` could not be started: {error}", line(&command)))?;
    if !output.status.success() {
        return Err(format!("`{}` ended with {}", line(&command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("`{}`: {error}", line(&command)))
}

/// Runs cargo to its end, for what it prints.
pub(crate) fn cargo_to_its_end(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program());
    end(command.args(arguments)).map(|_| ())
}

/// The cargo that runs this one, where there is one.
fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a command to its success.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    match end(command)? {
        status if status.success() => Ok(()),
        status => Err(format!("`{}` ended with {status}", line(command))),
    }
}

fn end(command: &mut Command) -> Result<ExitStatus, String> {
    eprintln!("$ {}", line(command));
    command
        .status()
        .map_err(|error| format!("`{}` could not be started: {error}", line(command)))
}

fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    words.join(OsStr::new(" ")).display().to_string()
}
