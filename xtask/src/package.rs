//! The packages as a registry would get them: that each has what it needs, and compiles from nothing else.
//!
//! Owns the folder in which they are unpacked, `target/packages`. `cargo package` could verify them by itself, but generates
//! code for all dependencies to do so; here they are checked, in the target folder of the other checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::commands::{cargo, cargo_in, run};
use crate::manifests::{missing_for_a_registry, published, read, target, workspace};

/// Files that each package has to have, whatever its crate is.
const FILES: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Packages all crates that are published, and compiles them from the packages alone.
pub(crate) fn check() -> Result<(), String> {
    let crates = published()?;
    let needed = format!("needs Rust {}", env!("CARGO_PKG_RUST_VERSION"));
    for name in &crates {
        let folder = workspace().join(name);
        let missing = missing_for_a_registry(&read(&folder.join("Cargo.toml"))?);
        if !missing.is_empty() {
            return Err(format!("{name}/Cargo.toml lacks {}", missing.join(", ")));
        }
        if !read(&folder.join("README.md"))?.contains(&needed) {
            return Err(format!("{name}/README.md does not say that it {needed}"));
        }
    }
    if !read(&workspace().join("README.md"))?.contains(&needed) {
        return Err(format!("README.md does not say that idem {needed}"));
    }
    // All in one call, so that each finds the others though no registry has them. With what is not committed, as every
    // other check.
    let mut arguments = vec!["package", "--quiet", "--no-verify", "--allow-dirty"];
    arguments.extend(crates.iter().flat_map(|name| ["--package", name]));
    cargo(&arguments, &[])?;
    let folder = unpack(&crates)?;
    cargo_in(&folder, &["check", "--workspace", "--all-features"], &target(), &[])
}

/// Unpacks the packages into a workspace of their own, in which each takes the place of the registry's.
fn unpack(crates: &[String]) -> Result<PathBuf, String> {
    let folder = target().join("packages");
    let fault = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(fault)?;
    }
    fs::create_dir_all(&folder).map_err(fault)?;
    let mut members = Vec::new();
    for name in crates {
        let member = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let archive = target().join("package").join(format!("{member}.crate"));
        let mut tar = Command::new("tar");
        // As old as this: a package says that all of its files are of one day, and cargo would not see what has changed.
        run(tar.arg("xzmf").arg(archive).arg("-C").arg(&folder))?;
        has_files(&folder.join(&member))?;
        members.push((name, member));
    }
    let list: Vec<_> = members.iter().map(|(_, member)| format!("\"{member}\"")).collect();
    let patches: Vec<_> = members
        .iter()
        .map(|(name, member)| format!("{name} = {{ path = \"{member}\" }}"))
        .collect();
    let manifest = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[patch.crates-io]\n{}\n\n{}",
        list.join(", "),
        patches.join("\n"),
        profiles(&read(&workspace().join("Cargo.toml"))?)
    );
    fs::write(folder.join("Cargo.toml"), manifest).map_err(fault)?;
    // The versions that everything else is checked with.
    fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).map_err(fault)?;
    Ok(folder)
}

fn has_files(package: &Path) -> Result<(), String> {
    let missing = FILES.into_iter().find(|file| !package.join(file).is_file());
    missing.map_or(Ok(()), |file| Err(format!("{} lacks {file}", package.display())))
}

/// The profiles of the workspace's manifest: with others, dependencies would be checked again.
fn profiles(manifest: &str) -> &str {
    manifest.find("[profile.").map_or("", |start| &manifest[start..])
}
