//! Finds or installs the servers that tests start as child processes.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::commands::run;

/// A program that tests need, and the package that has it, by package manager.
struct Server {
    program: &'static str,
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

const SERVERS: [Server; 1] = [Server {
    program: "redis-server",
    packages: &[
        ("apt-get", "redis-server"),
        ("dnf", "redis"),
        ("apk", "redis"),
        ("pacman", "redis"),
        ("zypper", "redis"),
        ("brew", "redis"),
    ],
}];

/// Makes every server available, or says in one line what to install.
pub(crate) fn setup() -> Result<(), String> {
    for server in &SERVERS {
        if find(server.program).is_none() {
            server.install()?;
        }
        let found = find(server.program).ok_or_else(|| server.advice())?;
        eprintln!("{}: {}", server.program, found.display());
    }
    Ok(())
}

impl Server {
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

/// The path of an executable on the PATH.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
