//! The manifests of the workspace, as far as commands need them: which crates are published, and what they say.
//!
//! Reads lines, not TOML: the manifests are the project's own and have one form.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The target folder of the workspace. What other workspaces compile there they share with this one.
pub(crate) fn target() -> PathBuf {
    let named = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    named.map_or_else(|| workspace().join("target"), |target| workspace().join(target))
}

/// The crates that a registry gets: every member whose manifest does not say `publish = false`. Each is in a folder of
/// its name.
pub(crate) fn published() -> Result<Vec<String>, String> {
    let mut crates = members(&read(&workspace().join("Cargo.toml"))?);
    let mut unread = None;
    crates.retain(|name| match read(&workspace().join(name).join("Cargo.toml")) {
        Ok(manifest) => is_published(&manifest),
        Err(error) => {
            unread = Some(error);
            false
        }
    });
    unread.map_or(Ok(crates), Err)
}

pub(crate) fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn members(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != "members = [").skip(1);
    let members = lines.take_while(|line| *line != "]");
    members
        .map(|line| line.trim().trim_matches(['"', ',']).to_owned())
        .collect()
}

/// The workspace's manifest with other members.
pub(crate) fn members_replaced(manifest: &str, members: &[&str]) -> String {
    let Some((before, (_, after))) = manifest
        .split_once("members = [")
        .and_then(|(before, rest)| Some((before, rest.split_once(']')?)))
    else {
        return manifest.to_owned();
    };
    let members: Vec<_> = members.iter().map(|name| format!("\"{name}\"")).collect();
    format!("{before}members = [{}]{after}", members.join(", "))
}

fn is_published(manifest: &str) -> bool {
    manifest.lines().all(|line| line != "publish = false")
}

/// What a registry or a documentation site shows of a crate and its manifest does not say.
pub(crate) fn missing_for_a_registry(manifest: &str) -> Vec<&'static str> {
    const WANTED: [&str; 8] = [
        "description = ",
        "license.workspace = true",
        "rust-version.workspace = true",
        "readme = \"README.md\"",
        "keywords = ",
        "categories = ",
        "all-features = true",
        "rustdoc-args = [\"--cfg\", \"docsrs\"]",
    ];
    let is_missing = |start: &&str| !manifest.lines().any(|line| line.starts_with(start));
    WANTED.into_iter().filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_and_the_published_ones_do_not_say_otherwise() {
        let members = members("[workspace]\nmembers = [\n    \"a\",\n    \"tests/b\",\n]\nexclude = [\"c\"]\n");
        assert_eq!(members, ["a", "tests/b"]);
        assert!(is_published("[package]\nname = \"a\"\n"));
        assert!(!is_published("[package]\nname = \"a\"\npublish = false\n"));
    }

    #[test]
    fn members_can_be_replaced() {
        let manifest = "members = [\n    \"a\",\n]\nexclude = [\"c\"]\n";
        let replaced = members_replaced(manifest, &["b", "d"]);
        assert_eq!(replaced, "members = [\"b\", \"d\"]\nexclude = [\"c\"]\n");
    }

    #[test]
    fn what_a_registry_shows_has_to_be_said() {
        let missing = missing_for_a_registry("description = \"x\"\nreadme = \"README.md\"\n");
        assert!(missing.contains(&"keywords = ") && !missing.contains(&"description = "));
    }

    #[test]
    fn the_library_is_published_and_this_is_not() {
        let crates = published().expect("the manifests can be read");
        assert!(crates.iter().any(|name| name == "idem-axum"));
        assert!(!crates.iter().any(|name| name == "xtask"));
    }
}
