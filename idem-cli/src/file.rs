//! Files that the command line names.
//!
//! Owns that a URL in the place of a path is not shown: it may have a password.

use std::path::Path;

use crate::exit::Failure;

/// The content of the file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::usage(format!("{} cannot be read", shown(path))).because(&error))
}

fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    if path.contains("://") {
        return "(a URL)".to_owned();
    }
    path
}
