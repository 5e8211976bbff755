//! Mistakes the compiler catches: one file a case, named for it, with what it says beside it.

#[test]
fn mistakes_are_reported_on_the_token_at_fault() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("ui/fail/*.rs");
    // The rest of what these say is the compiler's own wording, which changes with it.
    let ours = env!("CARGO_PKG_RUST_VERSION");
    if rustc_version().is_some_and(|version| version.starts_with(ours)) {
        cases.compile_fail("ui/fail/types/*.rs");
    } else {
        eprintln!("skipped ui/fail/types: written for rustc {ours}");
    }
}

fn rustc_version() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = std::process::Command::new(rustc).arg("--version").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    Some(said.strip_prefix("rustc ")?.to_owned())
}
