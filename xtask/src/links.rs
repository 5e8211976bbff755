//! The links between the project's pages: each one leads somewhere.
//!
//! Owns which pages are looked at. Links from one item of the documentation to another, such as ``[`name`]``, are rustdoc's to
//! check, and what is elsewhere on the web is not looked at.

use std::fs;
use std::path::{Path, PathBuf};

use crate::manifests::{published, read, workspace};
use crate::pages;

/// Where pages are, besides the folders of the crates that are published.
const FOLDERS: [&str; 5] = [
    ".",
    "docs",
    "idem-axum/src",
    "idem-axum/src/guide",
    "idem-task/src/guide",
];

/// Names every link that leads nowhere.
pub(crate) fn check() -> Result<(), String> {
    let mut faults = Vec::new();
    let mut seen = 0;
    for page in pages_in(&workspace())? {
        let text = read(&page)?;
        for (line, target) in pages::links(&text) {
            seen += 1;
            if let Some(fault) = fault(&page, &text, target)? {
                faults.push(format!("{}:{line}: `{target}` {fault}", page.display()));
            }
        }
    }
    eprintln!("{seen} links between pages");
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("links that lead nowhere:\n{}", faults.join("\n")))
}

fn pages_in(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut pages = Vec::new();
    let crates = published()?;
    for folder in FOLDERS.into_iter().chain(crates.iter().map(String::as_str)) {
        let folder = root.join(folder);
        let files = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let files = files.flatten().map(|file| file.path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    Ok(pages)
}

/// What is wrong with a link on `page`.
fn fault(page: &Path, text: &str, target: &str) -> Result<Option<&'static str>, String> {
    const NO_HEADING: &str = "is no heading of that page";
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (file, anchor) = target
        .split_once('#')
        .map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let has = |text: &str| anchor.is_none_or(|anchor| pages::anchors(text).iter().any(|name| name == anchor));
    if file.is_empty() {
        return Ok((!has(text)).then_some(NO_HEADING));
    }
    if is_of_a_crate(page) {
        return Ok(Some(
            "leads nowhere in rustdoc or on a registry's page, or nowhere outside of them; write [`item`] or the file's name",
        ));
    }
    let file = page.with_file_name(file);
    if !file.exists() {
        return Ok(Some("does not exist"));
    }
    if anchor.is_none() || file.is_dir() {
        return Ok(None);
    }
    Ok((!has(&read(&file)?)).then_some(NO_HEADING))
}

/// Whether the page is read in rustdoc or on a registry's page as well, which have no files beside it.
fn is_of_a_crate(page: &Path) -> bool {
    let page = page.strip_prefix(workspace()).unwrap_or(page);
    page.to_string_lossy().starts_with("idem-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_needs_a_file_and_a_heading_and_in_rustdoc_has_no_files() {
        let root = workspace();
        let (readme, guide) = (root.join("README.md"), root.join("idem-axum/src/guide/orders.md"));
        let leads = |page: &Path, target| fault(page, "# Here", target).expect("it can be read").is_none();
        for target in [
            "#here",
            "docs",
            "docs/http.md",
            "docs/http.md#keys",
            "https://example.com/#gone",
        ] {
            assert!(leads(&readme, target), "{target}");
        }
        for target in ["#there", "docs/gone.md", "docs/http.md#gone"] {
            assert!(!leads(&readme, target), "{target}");
        }
        assert!(leads(&guide, "#here"));
        for target in ["payments.md", "crate::Idempotency"] {
            assert!(!leads(&guide, target), "{target}");
        }
        assert!(!leads(&root.join("idem-core/README.md"), "../docs/http.md"));
    }
}
