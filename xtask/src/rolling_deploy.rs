//! A rolling deploy from a version that knows no durable steps to this one: both as processes, on the same records.
//!
//! Owns the checkout of the older commit in `target/rolling-deploy`, and the service on it. The service's `main.rs` and the handlers of
//! this version are `tests/src/bin/rolling-service`; the older commit gets the handlers in `rolling_deploy/old_handler.rs`. What is
//! tried and judged is in `tests/src/rolling`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::commands::{cargo, cargo_in, run};
use crate::manifests::{members_replaced, read, target, workspace};
use crate::servers;

/// The last commit before durable steps.
const LAST_WITHOUT_STEPS: &str = "7f66892";

/// The name of the service, on either commit.
const SERVICE: &str = "rolling-service";

/// On the older commit. The workspace there says which versions these are.
const MANIFEST: &str = r#"[package]
name = "rolling-service"
version.workspace = true
edition.workspace = true
publish = false

[dependencies]
axum = { workspace = true, features = ["http1", "json", "tokio"] }
idem-axum = { workspace = true, features = ["postgres", "redis", "sqlite"] }
reqwest.workspace = true
serde.workspace = true
tokio = { workspace = true, features = ["macros", "net", "rt-multi-thread"] }
"#;

/// What the command was told.
pub(crate) struct Options {
    /// The older commit.
    from: String,
}

impl Options {
    /// Reads `--from <revision>`, if it is there.
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let from = match *words {
            [] => LAST_WITHOUT_STEPS,
            ["--from", revision] => revision,
            _ => return None,
        };
        Some(Self { from: from.to_owned() })
    }
}

/// Builds the service twice, and tries a rolling deploy on each backend.
pub(crate) fn try_out(options: &Options) -> Result<(), String> {
    let commit = commit(&options.from)?;
    servers::setup()?;
    let old = build_old(&commit)?;
    let build = ["build", "--package", "idem-tests", "--bin", "rolling", "--bin", SERVICE];
    cargo(&build, &[])?;
    let old = old.display().to_string();
    println!("from {commit}:");
    cargo(&["run", "--package", "idem-tests", "--bin", "rolling", "--", &old], &[])
}

/// The full name of a commit that has no durable steps.
fn commit(revision: &str) -> Result<String, String> {
    let Some(commit) = git(&["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")])? else {
        let is_shallow = git(&["rev-parse", "--is-shallow-repository"])?;
        return Err(match is_shallow.as_deref() {
            None => "this is no git repository, so an older commit cannot be built".to_owned(),
            Some("true") => {
                format!("this clone is shallow and lacks the commit {revision}; try `git fetch --unshallow`")
            }
            Some(_) => format!("there is no commit {revision} here; `--from <revision>` names another one"),
        });
    };
    let steps = format!("{commit}:idem-core/src/steps");
    if git(&["rev-parse", "--verify", "--quiet", &steps])?.is_some() {
        return Err(format!(
            "the commit {revision} knows durable steps; name one from before them"
        ));
    }
    Ok(commit)
}

/// What git prints, if it succeeds.
fn git(arguments: &[&str]) -> Result<Option<String>, String> {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(workspace()).stderr(Stdio::null());
    let output = command.output().map_err(|error| format!("git: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(output.status.success().then_some(printed))
}

/// Builds the service on the older commit, and returns where it is.
fn build_old(commit: &str) -> Result<PathBuf, String> {
    let folder = target().join("rolling-deploy");
    let checkout = folder.join(commit);
    check_out(commit, &checkout)?;
    let service = checkout.join(SERVICE);
    let manifest = read(&checkout.join("Cargo.toml"))?;
    // The crates that the service depends on are members without being named.
    write(&checkout.join("Cargo.toml"), &members_replaced(&manifest, &[SERVICE]))?;
    let main = read(&workspace().join("tests/src/bin").join(SERVICE).join("main.rs"))?;
    create_folder(&service.join("src"))?;
    write(&service.join("Cargo.toml"), MANIFEST)?;
    write(&service.join("src/main.rs"), &main)?;
    write(
        &service.join("src/handler.rs"),
        include_str!("rolling_deploy/old_handler.rs"),
    )?;
    let built = folder.join("target");
    cargo_in(&checkout, &["build", "--package", SERVICE], &built, &[])?;
    Ok(built.join("debug").join(SERVICE))
}

/// Puts the files of a commit into a folder. They are as old as the commit, so cargo compiles them once.
fn check_out(commit: &str, checkout: &Path) -> Result<(), String> {
    if checkout.exists() {
        fs::remove_dir_all(checkout).map_err(|error| format!("{}: {error}", checkout.display()))?;
    }
    create_folder(checkout)?;
    let archive = checkout.with_extension("tar");
    let mut git = Command::new("git");
    git.args(["archive", "--format=tar", "--output"]).arg(&archive);
    run(git.arg(commit).current_dir(workspace()))?;
    run(Command::new("tar").arg("xf").arg(&archive).arg("-C").arg(checkout))?;
    fs::remove_file(&archive).map_err(|error| format!("{}: {error}", archive.display()))
}

fn create_folder(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
