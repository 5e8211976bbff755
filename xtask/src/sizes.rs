//! How long the files and functions of the runtime crates are: `cargo xtask sizes`, and a part of `cargo xtask lint`.
//!
//! Owns the limits, the exceptions with their reasons, and the scanner that measures. The scanner relies on rustfmt: a function
//! ends at the first `}` that has the indentation of its `fn`. Does not own formatting, which `cargo fmt --check` enforces.
//!
//! Only what users compile is measured: `src` of the crates below, without `tests.rs`, `tests/` and every module that is
//! declared under `#[cfg(test)]`. A file's length includes its inline `#[cfg(test)] mod tests { … }`, because a reader who opens the
//! file scrolls past it. The functions of that inline module are not measured.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

const CRATES: [&str; 10] = [
    "idem-core",
    "idem-http",
    "idem-redis",
    "idem-postgres",
    "idem-sql",
    "idem-sqlite",
    "idem-axum",
    "idem-task",
    "idem-cli",
    "idem-macros",
];

const FILE_LIMIT: usize = 400;

const FUNCTION_LIMIT: usize = 60;

/// A file, or a function of it, that may exceed its limit.
struct Exception {
    /// From the root of the workspace.
    file: &'static str,
    /// `None`: the file itself.
    function: Option<&'static str>,
    /// Why splitting it would not help its reader.
    reason: &'static str,
}

const EXCEPTIONS: [Exception; 1] = [Exception {
    file: "idem-postgres/src/statements.rs",
    function: Some("on"),
    reason: "a table: one struct literal with the text of every statement, below the four fragments they share",
}];

/// The lines of one file or one function.
#[derive(Debug, PartialEq, Eq)]
struct Size {
    name: String,
    /// The line it begins at, from 1.
    line: usize,
    lines: usize,
}

/// What the scanner found in one file.
#[derive(Default)]
struct Scan {
    functions: Vec<Size>,
    /// The names of modules in other files that are declared under `#[cfg(test)]`.
    test_modules: Vec<String>,
}

/// Prints the sizes, and fails with every file and function over its limit.
pub(crate) fn check() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut files, mut functions) = (Vec::new(), Vec::new());
    for (path, text) in sources(&root)? {
        let file = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        functions.extend(scan(&text).functions.into_iter().map(|size| (file.clone(), size)));
        files.push((file, text.lines().count()));
    }
    eprintln!("lines a file:     {}", summary(files.iter().map(|(_, lines)| *lines)));
    eprintln!(
        "lines a function: {}",
        summary(functions.iter().map(|(_, function)| function.lines))
    );
    for exception in &EXCEPTIONS {
        eprintln!("excepted: {}: {}", exception.place(), exception.reason);
    }
    let faults = faults(&files, &functions, &EXCEPTIONS);
    if faults.is_empty() {
        return Ok(());
    }
    Err(faults.join("\n"))
}

impl Exception {
    fn place(&self) -> String {
        match self.function {
            None => self.file.to_owned(),
            Some(function) => format!("{} fn {function}", self.file),
        }
    }
}

/// What is over its limit without an exception, and the exceptions that nothing needs any more.
fn faults(files: &[(String, usize)], functions: &[(String, Size)], exceptions: &[Exception]) -> Vec<String> {
    let long_files = files.iter().filter(|(_, lines)| *lines > FILE_LIMIT);
    let long_files = long_files.map(|(file, lines)| {
        let fault = format!("{file} has {lines} lines: {FILE_LIMIT} is the limit");
        (file.as_str(), None, fault)
    });
    let long_functions = functions.iter().filter(|(_, size)| size.lines > FUNCTION_LIMIT);
    let long_functions = long_functions.map(|(file, Size { name, line, lines })| {
        let fault = format!("{file}:{line}: `{name}` has {lines} lines: {FUNCTION_LIMIT} is the limit");
        (file.as_str(), Some(name.as_str()), fault)
    });
    let mut unused: Vec<_> = exceptions.iter().collect();
    let mut faults = Vec::new();
    for (file, function, fault) in long_files.chain(long_functions) {
        let is_meant = |exception: &Exception| exception.file == file && exception.function == function;
        unused.retain(|exception| !is_meant(exception));
        if !exceptions.iter().any(is_meant) {
            faults.push(fault);
        }
    }
    let unused = unused.iter();
    faults.extend(unused.map(|exception| format!("{} needs no exception any more", exception.place())));
    faults
}

/// The files that are measured, with their text.
fn sources(root: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let mut texts = Vec::new();
    for name in CRATES {
        read_into(&mut texts, &root.join(name).join("src"))?;
    }
    let test_modules: BTreeSet<_> = texts
        .iter()
        .flat_map(|(path, text)| {
            let modules = scan(text).test_modules;
            modules.into_iter().map(|module| modules_folder(path).join(module))
        })
        .collect();
    let is_test = |path: &Path| {
        path.ancestors()
            .any(|part| test_modules.contains(&part.with_extension("")))
    };
    texts.retain(|(path, _)| !is_test(path));
    Ok(texts)
}

/// Reads every source file below `folder`, except `tests.rs` and `tests/`.
fn read_into(texts: &mut Vec<(PathBuf, String)>, folder: &Path) -> Result<(), String> {
    let error = |path: &Path, error| format!("{}: {error}", path.display());
    let entries = fs::read_dir(folder).map_err(|cause| error(folder, cause))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            read_into(texts, &path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).map_err(|cause| error(&path, cause))?;
            texts.push((path, text));
        }
    }
    Ok(())
}

/// The folder that the modules declared in the file `path` are in.
fn modules_folder(path: &Path) -> PathBuf {
    let is_root = ["lib.rs", "mod.rs"].iter().any(|name| path.ends_with(name));
    if is_root {
        path.with_file_name("")
    } else {
        path.with_extension("")
    }
}

/// The functions of a file, and the modules that only its tests have.
fn scan(text: &str) -> Scan {
    let lines: Vec<_> = text.lines().collect();
    let mut scan = Scan::default();
    let mut at = 0;
    while at < lines.len() {
        if is_test_only(lines[at]) {
            let item = first_line_of_item(&lines, at + 1);
            if let Some(module) = lines.get(item).and_then(|line| module_elsewhere(line)) {
                scan.test_modules.push(module.to_owned());
            }
            at = end_of_item(&lines, item).unwrap_or(item) + 1;
            continue;
        }
        if let Some(name) = function_name(lines[at])
            && let Some(end) = end_of_item(&lines, at)
            && !lines[end].ends_with(';')
        {
            scan.functions.push(Size {
                name: name.to_owned(),
                line: at + 1,
                lines: end + 1 - at,
            });
        }
        at += 1;
    }
    scan
}

fn is_test_only(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test,")
}

/// Skips the attributes and comments between a `#[cfg(test)]` and its item.
fn first_line_of_item(lines: &[&str], from: usize) -> usize {
    let is_item = |line: &str| !line.trim_start().starts_with(['#', '/']);
    let skipped = lines[from..].iter().take_while(|line| !is_item(line)).count();
    from + skipped
}

/// The name of a module that this line declares and another file has.
fn module_elsewhere(line: &str) -> Option<&str> {
    let (_, name) = line.trim_start().split_once("mod ")?;
    name.strip_suffix(';')
}

/// The last line of the item that begins at `first`: its `}`, or the `;` of a declaration.
fn end_of_item(lines: &[&str], first: usize) -> Option<usize> {
    let indentation = indentation(lines.get(first)?);
    let ends = |line: &str| line.ends_with(';') || line.ends_with('}');
    let head = (first..lines.len()).find(|at| lines[*at].ends_with('{') || ends(lines[*at]))?;
    if ends(lines[head]) {
        return Some(head);
    }
    let is_last = |line: &str| self::indentation(line) == indentation && line.trim_start().starts_with('}');
    (head + 1..lines.len()).find(|at| is_last(lines[*at]))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the function whose first line this is.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if let Some(after) = rest.strip_prefix("pub") {
        rest = match after.strip_prefix('(') {
            Some(restricted) => restricted.split_once(')')?.1,
            None => after,
        };
        rest = rest.strip_prefix(' ')?;
    }
    for qualifier in ["const ", "async "] {
        rest = rest.strip_prefix(qualifier).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
    Some(&rest[..end])
}

/// Median, 90th percentile and maximum.
fn summary(lengths: impl Iterator<Item = usize>) -> String {
    let mut lengths: Vec<_> = lengths.collect();
    lengths.sort_unstable();
    let Some(last) = lengths.len().checked_sub(1) else {
        return "none".to_owned();
    };
    let at = |percent: usize| lengths[last * percent / 100];
    let number = lengths.len();
    format!(
        "median {}, 90th percentile {}, maximum {}, of {number}",
        at(50),
        at(90),
        lengths[last]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
pub(crate) const fn one(self) -> u8 { 1 }

trait Has {
    fn declared(
        &self,
    ) -> u8;

    async fn nested<T>(&self)
    where
        T: Copy,
    {
        if true {
            return;
        }
    }
}

#[cfg(test)]
mod elsewhere;

#[cfg(test)]
#[allow(dead_code)]
mod tests {
    fn not_measured() {
    }
}

pub fn last() {
}
";

    fn size(name: &str, line: usize, lines: usize) -> Size {
        let name = name.to_owned();
        Size { name, line, lines }
    }

    fn exception(function: Option<&'static str>) -> Exception {
        Exception {
            file: "a.rs",
            function,
            reason: "a table",
        }
    }

    #[test]
    fn functions_are_measured_from_their_fn_to_their_brace_and_those_of_tests_are_not() {
        let scan = scan(TEXT);
        let expected = [size("one", 1, 1), size("nested", 8, 8), size("last", 28, 2)];
        assert_eq!(scan.functions, expected);
        assert_eq!(scan.test_modules, ["elsewhere"]);
    }

    #[test]
    fn a_declaration_has_no_length_and_a_call_is_no_function() {
        assert_eq!(function_name("    pub(in crate::a) async fn b<T>("), Some("b"));
        for line in ["let fn_name = 1;", "public fn a()", "// fn a()", "fn_call();"] {
            assert_eq!(function_name(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_over_the_limit_needs_an_exception_and_an_exception_needs_what_is_over() {
        let file = |lines| [("a.rs".to_owned(), lines)];
        let function = |lines| [("a.rs".to_owned(), size("f", 1, lines))];
        assert!(faults(&file(FILE_LIMIT), &function(FUNCTION_LIMIT), &[]).is_empty());
        let over = faults(&file(FILE_LIMIT + 1), &function(FUNCTION_LIMIT + 1), &[]);
        assert_eq!(over.len(), 2, "{over:?}");
        let excepted = [exception(None), exception(Some("f"))];
        assert!(faults(&file(FILE_LIMIT + 1), &function(FUNCTION_LIMIT + 1), &excepted).is_empty());
        let unused = faults(&file(FILE_LIMIT), &function(FUNCTION_LIMIT), &excepted);
        assert_eq!(unused.len(), 2, "{unused:?}");
    }

    #[test]
    fn modules_of_a_file_are_in_the_folder_of_its_name_and_those_of_a_root_beside_it() {
        let folder = |path| modules_folder(Path::new(path));
        assert_eq!(folder("src/key.rs"), Path::new("src/key"));
        assert_eq!(folder("src/lib.rs").join("key"), Path::new("src/key"));
        assert_eq!(folder("src/claim/mod.rs").join("decide"), Path::new("src/claim/decide"));
    }

    #[test]
    fn a_summary_names_median_percentile_and_maximum() {
        let text = summary((1..=11).rev());
        assert_eq!(text, "median 6, 90th percentile 10, maximum 11, of 11");
        assert_eq!(summary(std::iter::empty()), "none");
    }
}
