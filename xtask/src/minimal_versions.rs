//! Whether the manifests ask for versions of dependencies that are enough: the published crates with the lowest of them.
//!
//! Owns the copy of the crates in `target/minimal-versions`. What every user has is resolved to the lowest versions first.
//! What a feature adds may want newer ones of the same dependencies, and gets them in a second step, which begins with the
//! lock file of the first.

use std::fs;
use std::path::{Path, PathBuf};

use crate::commands::cargo_in;
use crate::manifests::{members_replaced, published, read, workspace};

/// What comes with a feature only, and the crate that has all of it.
const OPTIONAL: [&str; 9] = [
    "aide",
    "axum-extra",
    "idem-cli",
    "idem-postgres",
    "idem-redis",
    "idem-sql",
    "idem-sqlite",
    "sqlx",
    "utoipa",
];

/// What the optional crates need, which has to be set to its lowest version by name.
const OF_OPTIONAL: [&str; 5] = ["aide", "axum-extra", "redis", "sqlx", "utoipa"];

/// Compiles the published crates with the lowest versions that their manifests allow.
pub(crate) fn check() -> Result<(), String> {
    let crates = published()?;
    let all: Vec<_> = crates.iter().map(String::as_str).collect();
    let least: Vec<_> = all.iter().copied().filter(|name| !OPTIONAL.contains(name)).collect();
    let copy = Copy::of(&all)?;

    copy.write(&least, without_optional)?;
    // Cargo takes this option of nightly's from a stable toolchain, too, if it is told to.
    copy.cargo(&["generate-lockfile", "-Z", "direct-minimal-versions"], true)?;
    copy.cargo(&["check", "--workspace", "--all-features"], false)?;

    copy.write(&all, str::to_owned)?;
    // Adds what is missing to the lock file.
    copy.cargo(&["update", "--workspace"], false)?;
    let manifest = read(&workspace().join("Cargo.toml"))?;
    for name in OF_OPTIONAL {
        let version = lowest(&manifest, name).ok_or_else(|| format!("{name} has no version"))?;
        copy.cargo(&["update", name, "--precise", version], false)?;
    }
    copy.cargo(&["check", "--workspace", "--all-features"], false)
}

/// The crates in a workspace of their own.
struct Copy(PathBuf);

impl Copy {
    fn of(crates: &[&str]) -> Result<Self, String> {
        let folder = workspace().join("target/minimal-versions");
        for name in crates {
            let to = folder.join(name);
            let fault = |error: std::io::Error| format!("{}: {error}", to.display());
            if to.exists() {
                fs::remove_dir_all(&to).map_err(fault)?;
            }
            copy_folder(&workspace().join(name), &to).map_err(fault)?;
        }
        Ok(Self(folder))
    }

    /// Writes the manifests: of the workspace with these members, and of each member without what only tests need and changed by
    /// `change`.
    fn write(&self, members: &[&str], change: fn(&str) -> String) -> Result<(), String> {
        let put = |file: PathBuf, text: String| {
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
        };
        let manifest = read(&workspace().join("Cargo.toml"))?;
        put(self.0.join("Cargo.toml"), members_replaced(&manifest, members))?;
        for name in members {
            let manifest = read(&workspace().join(name).join("Cargo.toml"))?;
            put(
                self.0.join(name).join("Cargo.toml"),
                change(&without_dev_dependencies(&manifest)),
            )?;
        }
        Ok(())
    }

    fn cargo(&self, arguments: &[&str], as_nightly: bool) -> Result<(), String> {
        // Features that were left out are still asked for in the code.
        let mut environment = vec![("RUSTFLAGS", "--cap-lints allow")];
        if as_nightly {
            environment.push(("RUSTC_BOOTSTRAP", "1"));
        }
        cargo_in(&self.0, arguments, &self.0.join("target"), &environment)
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

fn without_dev_dependencies(manifest: &str) -> String {
    let mut is_left_out = false;
    let kept = manifest.lines().filter(|line| {
        if line.starts_with('[') {
            is_left_out = *line == "[dev-dependencies]";
        }
        !is_left_out
    });
    lines(kept)
}

fn lines<'a>(kept: impl Iterator<Item = &'a str>) -> String {
    let mut text = kept.collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

/// Without the optional dependencies, the features that turn them on, and `default`, which names such features.
fn without_optional(manifest: &str) -> String {
    let is_optional = |line: &str| {
        OPTIONAL.into_iter().any(|name| {
            let dependency = [format!("{name} = {{"), format!("{name}.workspace")];
            let features = [format!("\"dep:{name}\""), format!("\"{name}/")];
            dependency.iter().any(|start| line.starts_with(start)) || features.iter().any(|part| line.contains(part))
        })
    };
    let kept = manifest
        .lines()
        .filter(|line| !line.starts_with("default = ") && !is_optional(line));
    lines(kept)
}

/// The version that the workspace's manifest asks for.
fn lowest<'a>(manifest: &'a str, name: &str) -> Option<&'a str> {
    let asked = manifest
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} = ")))?;
    asked.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[features]\ndefault = [\"a\", \"redis\"]\na = []\nredis = [\"dep:idem-redis\"]\n\
                            tls = [\"redis\", \"idem-redis/rustls\"]\n\n[dependencies]\nidem-redis = { optional = true }\n\
                            idem-core.workspace = true\n\n[dev-dependencies]\nx = \"1\"\n\n[lints]\nworkspace = true\n";

    #[test]
    fn what_only_tests_need_and_what_is_optional_can_be_left_out() {
        assert_eq!(
            without_optional(&without_dev_dependencies(MANIFEST)),
            "[features]\na = []\n\n[dependencies]\nidem-core.workspace = true\n\n[lints]\nworkspace = true\n"
        );
    }

    #[test]
    fn a_version_is_found_in_both_forms() {
        let manifest = "sqlx-core = { version = \"3\" }\nsqlx = { version = \"0.9.0\" }\ntokio = \"1.49\"\n";
        assert_eq!(lowest(manifest, "sqlx"), Some("0.9.0"));
        assert_eq!(lowest(manifest, "tokio"), Some("1.49"));
    }
}
