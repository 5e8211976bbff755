//! What the project depends on: licences, versions and sources, by the rules of `deny.toml`.
//!
//! `cargo deny` checks more, and is run where it is installed; it takes too long to build for a check that everybody runs.
//! The rest is checked here, on what `cargo tree` prints and on the lock file.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::commands::{cargo, output_of_cargo};
use crate::manifests::{read, workspace};

/// Names everything that breaks a rule.
pub(crate) fn check() -> Result<(), String> {
    let rules = read(&workspace().join("deny.toml"))?;
    let tree = [
        "tree",
        "--workspace",
        "--all-features",
        "--target",
        "all",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ];
    let tree = output_of_cargo(&tree)?;
    let packages = packages(&tree);
    let mut faults = licences(&packages, &entries(&rules, "allow"));
    faults.extend(versions(&packages, &entries(&rules, "skip")));
    faults.extend(sources(&read(&workspace().join("Cargo.lock"))?));
    faults.extend(wildcards(&read(&workspace().join("Cargo.toml"))?));
    eprintln!("{} dependencies", packages.len());
    if !faults.is_empty() {
        return Err(format!("dependencies:\n{}", faults.join("\n")));
    }
    if is_deny_installed() {
        return cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"], &[]);
    }
    Ok(())
}

fn is_deny_installed() -> bool {
    let mut version = Command::new("cargo-deny");
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Name and version of each package, and its licence.
type Packages<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

fn packages(tree: &str) -> Packages<'_> {
    let lines = tree.lines().filter_map(|line| line.split_once('|'));
    let packages = lines.filter_map(|(package, licence)| {
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        // Behind a package that was printed before.
        Some(((name, version), licence.trim_end_matches(" (*)")))
    });
    packages.collect()
}

/// The first string of each line of a list.
fn entries<'a>(rules: &'a str, list: &str) -> Vec<&'a str> {
    let start = format!("{list} = [");
    let lines = rules.lines().skip_while(|line| *line != start).skip(1);
    let lines = lines.take_while(|line| *line != "]");
    lines.filter_map(|line| line.split('"').nth(1)).collect()
}

fn licences(packages: &Packages<'_>, allowed: &[&str]) -> Vec<String> {
    let refused = packages.iter().filter(|(_, licence)| !is_allowed(licence, allowed));
    let named = refused.map(|((name, version), licence)| format!("{name} {version} has the licence `{licence}`"));
    named.collect()
}

/// Whether an SPDX expression leaves a choice that is allowed. `/` is an older form of `OR`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest, allowed) && rest.is_empty()
}

fn any_of(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut is_allowed = all_of(words, allowed);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        is_allowed |= all_of(words, allowed);
    }
    is_allowed
}

fn all_of(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut is_allowed = one(words, allowed);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        is_allowed &= one(words, allowed);
    }
    is_allowed
}

fn one(words: &mut &[&str], allowed: &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let is_allowed = any_of(words, allowed);
            let [")", rest @ ..] = *words else {
                return false;
            };
            *words = rest;
            is_allowed
        }
        // An exception adds a permission, but a licence with one is a licence of its own in the list.
        [_, "WITH", _, rest @ ..] => {
            *words = rest;
            false
        }
        [licence, rest @ ..] => {
            *words = rest;
            allowed.contains(licence)
        }
        [] => false,
    }
}

/// Versions besides the newest one of a crate that no reason is given for, and reasons for what is not there.
fn versions(packages: &Packages<'_>, skipped: &[&str]) -> Vec<String> {
    let mut counts = BTreeMap::<_, Vec<_>>::new();
    for (name, version) in packages.keys() {
        counts.entry(*name).or_default().push(*version);
    }
    let is_skipped = |name: &str, version: &str| skipped.iter().any(|entry| covers(entry, name, version));
    let mut faults = Vec::new();
    for (name, versions) in &counts {
        let left = versions.iter().filter(|version| !is_skipped(name, version));
        if left.count() > 1 {
            let versions = versions.join(", ");
            faults.push(format!(
                "{name} has the versions {versions}; give a reason in `skip` of deny.toml"
            ));
        }
    }
    let is_there = |entry: &str| packages.keys().any(|(name, version)| covers(entry, name, version));
    let gone = skipped.iter().filter(|entry| !is_there(entry));
    faults.extend(gone.map(|entry| format!("{entry} in `skip` of deny.toml is not used")));
    faults
}

/// Whether an entry such as `rand:^0.9` is about this version.
fn covers(entry: &str, name: &str, version: &str) -> bool {
    let rest = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix(":^"));
    let behind = rest.and_then(|asked| version.strip_prefix(asked));
    behind.is_some_and(|behind| behind.is_empty() || behind.starts_with('.'))
}

/// Each source of the lock file that is not the registry that all others are from.
fn sources(lock: &str) -> Vec<String> {
    let mut sources: Vec<_> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    sources.sort_unstable();
    sources.dedup();
    let (registries, others): (Vec<_>, Vec<_>) = sources.into_iter().partition(|it| it.starts_with("\"registry+"));
    let others = others.into_iter().map(|source| format!("{source} is no registry"));
    let more = registries.into_iter().skip(1);
    let more = more.map(|source| format!("{source} is a second registry"));
    others.chain(more).collect()
}

fn wildcards(manifest: &str) -> Vec<String> {
    let asks = manifest.lines().filter(|line| line.contains("\"*\""));
    asks.map(|line| format!("`{line}` takes any version")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_allowed_if_it_leaves_an_allowed_choice() {
        let allowed = ["MIT", "ISC", "Unicode-3.0"];
        for expression in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "GPL-3.0 AND ISC OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(is_allowed(expression, &allowed), "{expression}");
        }
        for expression in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND GPL-3.0",
            "MIT WITH some-exception",
            "(MIT",
            "MIT ISC",
        ] {
            assert!(!is_allowed(expression, &allowed), "{expression}");
        }
    }

    #[test]
    fn a_second_version_needs_a_reason_and_a_reason_a_second_version() {
        let packages =
            packages("a v1.0.0|MIT\na v2.0.0 (proc-macro)|MIT\na v2.0.0 (proc-macro)|MIT (*)\nb v1.0.0|MIT\n");
        assert_eq!(packages.len(), 3);
        assert_eq!(versions(&packages, &["a:^1"]), [""; 0]);
        assert_eq!(versions(&packages, &[]).len(), 1);
        assert_eq!(versions(&packages, &["a:^1", "b:^3"]).len(), 1);
    }

    #[test]
    fn sources_are_one_registry_and_versions_are_asked_for() {
        let lock = "source = \"registry+x\"\nsource = \"registry+x\"\n";
        assert_eq!(sources(lock), [""; 0]);
        assert_eq!(sources("source = \"registry+x\"\nsource = \"git+y\"\n").len(), 1);
        assert_eq!(sources("source = \"registry+x\"\nsource = \"registry+y\"\n").len(), 1);
        assert_eq!(wildcards("a = \"1\"\nb = \"*\"\n").len(), 1);
    }

    #[test]
    fn lists_are_read_a_line_an_entry() {
        let rules = "allow = [\n    \"MIT\",\n]\nskip = [\n    { crate = \"a:^1\", reason = \"x\" },\n]\n";
        assert_eq!(entries(rules, "allow"), ["MIT"]);
        assert_eq!(entries(rules, "skip"), ["a:^1"]);
    }
}
