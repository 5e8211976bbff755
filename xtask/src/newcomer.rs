//! What a new user does: the commands on the pages, in their order, on a clean checkout in a temporary folder.
//!
//! Owns which pages those are, where each one begins, and what stands in for what a machine may not have: a port that is
//! taken, a package that is not published. What a page shows below a command has to be printed, in that order.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use crate::commands::run;
use crate::manifests::target;
use crate::pages;

/// What a command prints that serves until it is stopped, before its URL.
const LISTENING: &str = "listening on http://";

/// Walks through every page that a new user follows.
pub(crate) fn walk() -> Result<(), String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = Folder::of(&workspace)?;
    let checkout = folder.0.join("idem");
    // What is not committed is not what somebody else gets.
    run(Command::new("git")
        .args(["clone", "--quiet"])
        .arg(&workspace)
        .arg(&checkout))?;
    let elsewhere = folder.0.join("elsewhere");
    fs::create_dir(&elsewhere).map_err(|error| format!("{}: {error}", elsewhere.display()))?;
    let target = target();
    let pages = [
        ("README.md", &checkout),
        ("CONTRIBUTING.md", &checkout),
        ("idem-axum/src/tutorial.md", &elsewhere),
    ];
    for (page, start) in pages {
        eprintln!("{page}:");
        let text = fs::read_to_string(checkout.join(page)).map_err(|error| format!("{page}: {error}"))?;
        let (text, address) = on_free_ports(text)?;
        let mut reader = Reader {
            checkout: &checkout,
            target: &target,
            folder: start.clone(),
            address,
            services: Vec::new(),
        };
        reader.follow(&text).map_err(|fault| format!("{page}: {fault}"))?;
    }
    Ok(())
}

/// The page with another port where the one of its service is taken on this machine, and the address it then has.
fn on_free_ports(page: String) -> Result<(String, Option<String>), String> {
    let Some(address) = page.lines().find_map(|line| line.strip_prefix(LISTENING)) else {
        return Ok((page, None));
    };
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    if TcpListener::bind(address).is_ok() {
        return Ok((page, Some(address.to_string())));
    }
    let free = TcpListener::bind((address.ip(), 0)).and_then(|listener| listener.local_addr());
    let free = free.map_err(|error| format!("no port is free: {error}"))?;
    eprintln!("{address} is taken, so {free} stands for it");
    Ok((
        page.replace(&address.to_string(), &free.to_string()),
        Some(free.to_string()),
    ))
}

/// Somebody with a terminal, who follows one page.
struct Reader<'a> {
    checkout: &'a Path,
    /// That of the workspace: dependencies that tests were compiled with are not compiled again.
    target: &'a Path,
    /// Where the terminal is.
    folder: PathBuf,
    /// Where the page's service listens.
    address: Option<String>,
    services: Vec<Service>,
}

/// A process that serves; it is stopped when this is dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // It is gone either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    /// The same each time, so that what is compiled there takes the place of what was before.
    fn of(workspace: &Path) -> Result<Self, String> {
        let mut hasher = DefaultHasher::new();
        workspace.hash(&mut hasher);
        let path = env::temp_dir().join(format!("idem-newcomer-{:016x}", hasher.finish()));
        if path.exists() {
            // Of a walk that was killed.
            fs::remove_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Reader<'_> {
    fn follow(&mut self, page: &str) -> Result<(), String> {
        for block in pages::blocks(page) {
            if block.info == "console" {
                for command in block.commands() {
                    eprintln!("$ {}", command.line);
                    self.enter(&command)
                        .map_err(|fault| format!("`{}` {fault}", command.line))?;
                }
            } else if block.lead.ends_with("`src/main.rs`:") {
                self.write_program(&block.lines.join("\n"))?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, command: &pages::Command) -> Result<(), String> {
        let words: Vec<_> = command.line.split_whitespace().collect();
        match words[..] {
            ["cd", folder] => {
                self.folder.push(folder);
                Ok(())
            }
            // This is one of them, and some take hours.
            ["cargo", "xtask", name, ..] if crate::USAGE.contains(&format!("\n  {name} ")) => Ok(()),
            ["cargo", "xtask", ..] => Err("is no command of ours".to_owned()),
            // Until it is published.
            ["cargo", "add", "idem-axum"] => {
                let path = self.checkout.join("idem-axum");
                self.try_out(command, &format!("cargo add --path '{}'", path.display()))
            }
            _ if command.shown.iter().any(|line| line.starts_with(LISTENING)) => self.serve(command),
            _ => self.try_out(command, &command.line),
        }
    }

    /// Runs `line`, which stands for `command`, to its end, and looks for what the page shows.
    fn try_out(&self, command: &pages::Command, line: &str) -> Result<(), String> {
        let output = self.shell(line).output().map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let complaint = || format!("it printed:\n{printed}{}", String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(format!("ended with {}; {}", output.status, complaint()));
        }
        match command.missing_in(&printed) {
            None => Ok(()),
            Some(piece) => Err(format!(
                "did not print `{piece}` where the page shows it; {}",
                complaint()
            )),
        }
    }

    /// Starts a service, and waits until it says that it listens.
    fn serve(&mut self, command: &pages::Command) -> Result<(), String> {
        // A shell that has become the command, so that stopping one is stopping the other.
        let mut shell = self.shell(&format!("exec {}", command.line));
        let child = shell.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut service = Service(child.map_err(|error| error.to_string())?);
        let stdout = service.0.stdout.take().ok_or("has no output")?;
        let printed: Vec<_> = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .take(command.shown.len())
            .collect();
        self.services.push(service);
        match command.missing_in(&printed.join("\n")) {
            None => Ok(()),
            Some(piece) => Err(format!("did not print `{piece}`, and so may not have started")),
        }
    }

    fn shell(&self, line: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-c", line]).current_dir(&self.folder);
        shell.stdin(Stdio::null()).env("CARGO_TARGET_DIR", self.target);
        // As in the workspace's manifest, which a service of one's own does not have.
        shell.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        // A proxy for the rest of the world knows nothing of this machine.
        shell.env("no_proxy", "127.0.0.1");
        for unset in ["DATABASE_URL", "REDIS_URL", "SHIPPING_DELAY_MS", "SHIPPING_TOKENS"] {
            shell.env_remove(unset);
        }
        shell.envs(self.address.as_ref().map(|address| ("SHIPPING_ADDR", address)));
        shell
    }

    /// Writes the program that a page shows, beside the versions that the workspace is tested with.
    fn write_program(&self, text: &str) -> Result<(), String> {
        let program = self.folder.join("src/main.rs");
        fs::write(&program, text).map_err(|error| format!("{}: {error}", program.display()))?;
        let versions = self.folder.join("Cargo.lock");
        fs::copy(self.checkout.join("Cargo.lock"), &versions)
            .map(|_| ())
            .map_err(|error| format!("{}: {error}", versions.display()))
    }
}
