//! Rebuilds the service when a migration changes, which the compiler does not see for a new file.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
