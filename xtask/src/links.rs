//! The links between the project's pages: each one leads somewhere.
//!
//! Owns which pages are looked at. Links of the documentation to items of the code are rustdoc's to check, and what is
//! elsewhere on the web is not looked at.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::pages;

/// Where pages are. Those below `src`, and the macro's own, are read in rustdoc, which has no files beside them.
const FOLDERS: [&str; 5] = [".", "docs", "idem-macros", "idem-axum/src", "idem-axum/src/guide"];

/// Names every link that leads nowhere.
pub(crate) fn check() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut faults = Vec::new();
    let mut seen = 0;
    for page in pages_in(&root)? {
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
    for folder in FOLDERS {
        let folder = root.join(folder);
        let files = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let files = files.flatten().map(|file| file.path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    Ok(pages)
}

fn read(page: &Path) -> Result<String, String> {
    fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))
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
    if is_in_rustdoc(page) {
        return Ok(file
            .contains(['/', '.'])
            .then_some("is a file, which rustdoc does not have"));
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

fn is_in_rustdoc(page: &Path) -> bool {
    page.components()
        .any(|part| part.as_os_str() == "src" || part.as_os_str() == "idem-macros")
}
