//! Runs other programs, saying which.

use std::process::Command;

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
    // Each feature of what users add has to compile alone.
    for features in ["", "macros", "postgres", "redis", "redis-rustls"] {
        let arguments = [
            "clippy",
            "--package",
            "idem-axum",
            "--no-default-features",
            "--features",
            features,
        ];
        cargo(&[&arguments[..], &["--", "--deny", "warnings"]].concat(), &[])?;
    }
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

/// What of the integration tests is about a server: deployments, faults, waiting and the contract. The rest needs one and
/// does not depend on which.
const ON_SERVERS: [&str; 8] = [
    "cluster::",
    "conformance::redis",
    "crashes::",
    "lab::",
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
    let integration = [
        "test",
        "--package",
        "idem-tests",
        "--all-features",
        "--test",
        "it",
        "--",
    ];
    cargo(
        &[&integration[..], &ON_SERVERS].concat(),
        &[("IDEM_REDIS_SERVER", &valkey)],
    )
}

/// The comparison, where speed is the point.
pub(crate) fn bench(options: &[&str]) -> Result<(), String> {
    let bench = ["run", "--release", "--package", "idem-bench", "--"];
    cargo(&[&bench[..], options].concat(), &[])
}

/// Runs cargo to its success.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    // The cargo that runs this one, where there is one.
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    run(Command::new(program).args(arguments).envs(environment.iter().copied()))
}

/// Runs a command to its success.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let line = words.join(std::ffi::OsStr::new(" "));
    let line = line.display();
    eprintln!("$ {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` ended with {status}")),
        Err(error) => Err(format!("`{line}` could not be started: {error}")),
    }
}
