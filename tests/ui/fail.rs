//! Mistakes the compiler catches: one file a case, named for it, with what it says beside it.
//!
//! Owns which compiler the texts are held against, and what they may be about: the author's tokens, in our words or the
//! compiler's, and no name that only the expansion has.

use std::fs;
use std::path::Path;

/// What our macro says is the same under every compiler. Most of what the others say is the compiler's own wording.
const BY_THE_MACRO: [&str; 3] = ["options", "signature", "tasks"];
const BY_THE_COMPILER: [&str; 4] = ["steps", "task_types", "types", "wiring"];

#[test]
fn mistakes_are_reported_on_the_token_at_fault() {
    let cases = trybuild::TestCases::new();
    let ours = env!("CARGO_PKG_RUST_VERSION");
    let mut folders = BY_THE_MACRO.to_vec();
    if rustc_version().is_some_and(|version| version.starts_with(ours)) {
        folders.extend(BY_THE_COMPILER);
    } else {
        eprintln!("skipped {BY_THE_COMPILER:?}: written for rustc {ours}");
    }
    for folder in folders {
        cases.compile_fail(format!("ui/fail/{folder}/*.rs"));
    }
}

fn rustc_version() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = std::process::Command::new(rustc).arg("--version").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    Some(said.strip_prefix("rustc ")?.to_owned())
}

/// Each case as `folder/name`, and what the compiler says of it.
fn cases() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/fail");
    let mut cases = Vec::new();
    for folder in BY_THE_MACRO.into_iter().chain(BY_THE_COMPILER) {
        for file in fs::read_dir(root.join(folder)).expect("the folder") {
            let path = file.expect("a file").path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.file_stem().expect("a name").display().to_string();
                let said = fs::read_to_string(path.with_extension("stderr")).expect("what is said");
                cases.push((format!("{folder}/{name}"), said));
            }
        }
    }
    cases
}

/// Where there is no other token to point at: the attribute is empty, or is one too many.
const AT_THE_ATTRIBUTE: [&str; 4] = [
    "options/everything_missing",
    "signature/annotated_twice",
    "signature/annotated_twice_by_another_name",
    "signature/annotated_twice_by_a_condition",
];

#[test]
fn each_error_is_at_a_token_of_the_author() {
    let cases = cases();
    assert!(cases.len() >= 40, "{} cases", cases.len());
    for (case, said) in cases {
        let lines: Vec<_> = said.lines().collect();
        let errors = lines.iter().enumerate().filter(|(_, line)| line.starts_with("error"));
        for (at, error) in errors {
            let place = lines.get(at + 1).copied().unwrap_or_default();
            assert!(
                place.contains(&format!("--> ui/fail/{case}.rs:")),
                "{case}: {error}\n{place}"
            );
            let marks = lines[at + 2..].iter().find(|line| line.contains('^'));
            let whole_attribute = marks.is_some_and(|marks| {
                let text = lines[at + 2..].iter().take_while(|line| *line != marks).last();
                let text = text.and_then(|line| line.split_once("| ")).map_or("", |(_, text)| text);
                let marked = marks.split_once("| ").map_or("", |(_, marks)| marks);
                text.starts_with("#[") && marked.trim_end().len() == text.len() && marked.starts_with('^')
            });
            let nothing_else = AT_THE_ATTRIBUTE.contains(&case.as_str());
            assert!(
                !whole_attribute || nothing_else,
                "{case}: {error} is at the whole attribute"
            );
        }
    }
}

/// Names that only the expansion has.
const OURS: [&str; 10] = [
    "__private",
    "Guard",
    "argument_1",
    "`guarded`",
    "`answer`",
    "into_response",
    "FromLayer",
    "FromArgument",
    "`returned`",
    "`_returned`",
];

/// Where the compiler names them all the same: a case or a folder, how the line begins, and why.
const FORCED: [(&str, &str, &str); 7] = [
    (
        "types/",
        "= help: the trait `idem_axum::__private::",
        "below our words, the compiler names the trait that carries them",
    ),
    (
        "types/",
        "help: the trait `idem_axum::__private::",
        "the same, with a place to point at",
    ),
    (
        "types/",
        "note: required by a bound in `idem_axum::__private::",
        "it names the function whose bound that trait is",
    ),
    (
        "wiring/first_argument_is_no_extractor",
        "",
        "without `debug_handler` axum speaks of the whole function, whose last argument is ours",
    ),
    ("wiring/last_argument_is_no_extractor", "", "the same"),
    (
        "wiring/described_",
        "error: use of deprecated associated constant `idem_axum::__private::",
        "a warning of ours is one of something deprecated, which the compiler names",
    ),
    (
        "wiring/called_with_",
        "",
        "the argument has a type, and `unguarded`, which makes one, is what its name leads to",
    ),
];

#[test]
fn no_error_is_about_a_name_of_the_expansion() {
    for (case, said) in cases() {
        let mut quotes_us = false;
        for line in said.lines() {
            // Below a place in our source, the compiler quotes it.
            quotes_us = match line.trim_start() {
                place if place.starts_with("--> $WORKSPACE/") => true,
                text => quotes_us && (text.starts_with('|') || text.starts_with("...")),
            };
            // That is axum's own module.
            let text = line.replace("axum_core::response::into_response", "");
            let ours = OURS.iter().find(|name| text.contains(**name));
            let is_forced = FORCED.iter().any(|(of, begins, _)| {
                let is_case = if of.ends_with(['/', '_']) {
                    case.starts_with(of)
                } else {
                    case == *of
                };
                is_case && line.trim_start().starts_with(begins)
            });
            assert!(quotes_us || ours.is_none() || is_forced, "{case}: {ours:?} in {line}");
        }
    }
}

/// Texts that quote the standard library are different where its source is not installed.
#[test]
fn no_error_depends_on_the_source_of_the_standard_library() {
    for (case, said) in cases() {
        assert!(!said.contains("$RUST"), "{case}");
    }
}

#[test]
fn each_text_is_that_of_a_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/fail");
    for folder in BY_THE_MACRO.into_iter().chain(BY_THE_COMPILER) {
        for file in fs::read_dir(root.join(folder)).expect("the folder") {
            let path = file.expect("a file").path();
            assert!(path.with_extension("rs").is_file(), "{}", path.display());
        }
    }
}
