//! schemathesis makes requests of the document at `/openapi.json`, and checks each answer against it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::Service;

/// As `xtask` installs it.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

#[test]
fn the_service_answers_as_its_document_says() {
    let service = Service::start(0);
    let packages = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/servers")
        .join(SCHEMATHESIS);
    assert!(packages.is_dir(), "`cargo xtask setup` installs {SCHEMATHESIS}");
    // It leaves what it has found in the folder that it is started in.
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in [
        ("schemathesis.toml", include_str!("../schemathesis/schemathesis.toml")),
        ("new_keys.py", include_str!("../schemathesis/new_keys.py")),
    ] {
        fs::write(folder.path().join(name), text).expect("the folder is ours");
    }

    let output = Command::new("python3")
        .arg(packages.join("bin/schemathesis"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", service.client.addr))
        .current_dir(&folder)
        .env("PYTHONPATH", &packages)
        // A proxy for the rest of the world knows nothing of this machine.
        .env("no_proxy", "127.0.0.1")
        .output()
        .expect("python3 is there");

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Where nothing is made, nothing fails.
    assert!(said.contains("Fuzzing"), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}
