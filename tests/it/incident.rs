//! `docs/incident.md` knows every outcome, and every warning and error that the library can log.

use std::fs;
use std::path::{Path, PathBuf};

use idem_http::RequestOutcome;

const PAGE: &str = include_str!("../../docs/incident.md");

/// The crates whose lines an operator sees.
const CRATES: [&str; 9] = [
    "idem-core",
    "idem-http",
    "idem-axum",
    "idem-redis",
    "idem-postgres",
    "idem-sqlite",
    "idem-sql",
    "idem-task",
    "idem-cli",
];

#[test]
fn every_outcome_has_a_row() {
    for outcome in RequestOutcome::ALL {
        let row = format!("| `{}` |", outcome.name());
        assert!(PAGE.contains(&row), "no row begins with {row}");
    }
}

#[test]
fn every_warning_and_error_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut texts = Vec::new();
    for name in CRATES {
        for file in sources(&root.join(name).join("src")) {
            let source = fs::read_to_string(&file).expect("a source file");
            texts.extend(logged(&source).into_iter().map(|text| (file.clone(), text)));
        }
    }
    assert!(texts.len() >= 30, "only {} lines were found", texts.len());
    let unexplained: Vec<_> = texts.iter().filter(|(_, text)| !is_explained(text)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

/// The page names a line by its beginning, up to the advice in it; code in it is not marked as such there.
fn is_explained(text: &str) -> bool {
    let text = text.replace('`', "");
    let page = PAGE.replace('`', "");
    let named = |row: &str| row.split(" | ").nth(1).map(str::trim).map(str::to_owned);
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| WARN") || line.starts_with("| ERROR"));
    let variants: Vec<_> = rows.filter_map(named).collect();
    // A part in braces is filled in when the line is written.
    let parts: Vec<_> = text.split(['{', '}']).collect();
    variants.iter().any(|known| {
        let fixed = parts[0].trim_end();
        !known.is_empty() && (text.starts_with(known.as_str()) || (parts.len() > 1 && known.starts_with(fixed)))
    })
}

/// The files of a folder and those below it, without tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        if [
            "tests",
            "tests.rs",
            "model",
            "model.rs",
            "conformance",
            "testing",
            "guide",
        ]
        .contains(&name.as_str())
        {
            continue;
        }
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The messages of warnings and errors in a source file: the last text of each call.
fn logged(source: &str) -> Vec<String> {
    let calls = ["tracing::warn!(", "tracing::error!("]
        .into_iter()
        .flat_map(|call| source.split(call).skip(1));
    calls.filter_map(|rest| message(&rest[..end(rest)])).collect()
}

/// Where the parenthesis of a call is closed.
fn end(call: &str) -> usize {
    let (mut depth, mut in_text, mut escaped) = (1, false, false);
    for (at, character) in call.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' if !in_text => depth += 1,
            ')' if !in_text => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    call.len()
}

fn message(arguments: &str) -> Option<String> {
    let text = arguments.trim_end().trim_end_matches(',').strip_suffix('"')?;
    let (_, text) = text.rsplit_once(" \"").or_else(|| text.rsplit_once('"'))?;
    // A text that goes on in the next line leaves out the line break and what the next line begins with.
    let lines = text.split("\\\n").map(str::trim_start);
    Some(lines.collect::<String>().replace("\\\"", "\""))
}
