//! Whether a document is valid `OpenAPI`, as a program that knows the specification says.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// As `xtask` installs it.
const VALIDATOR: &str = "openapi-spec-validator==0.9.0";

/// Checks `document`, as JSON, against `OpenAPI` 3.1.
///
/// # Errors
///
/// What is wrong with it, in the validator's words.
pub fn validate_openapi(document: &str) -> Result<(), String> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/servers")
        .join(VALIDATOR);
    assert!(packages.is_dir(), "`cargo xtask setup` installs {VALIDATOR}");
    let mut validator = Command::new("python3")
        .args([
            "-m",
            "openapi_spec_validator",
            "--schema",
            "3.1",
            "--validation-errors",
            "all",
            "-",
        ])
        .env("PYTHONPATH", packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut stdin = validator.stdin.take().expect("piped");
    stdin.write_all(document.as_bytes()).expect("it reads");
    drop(stdin);
    let output = validator.wait_with_output().expect("it ends");
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&said).into_owned())
}
