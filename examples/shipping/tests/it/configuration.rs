//! What the service says before it refuses to start.

use std::net::TcpListener;

use crate::process::{Ended, Process};

/// In every value below that has a secret.
const SECRET: &str = "hunter2";

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    // Not the default port: where a value is taken by mistake, the service must not be in anybody's way.
    let variables = [&[("SHIPPING_ADDR", "127.0.0.1:0")], variables].concat();
    Process::start(arguments, &variables).ended()
}

#[track_caller]
fn assert_refuses(variable: &str, value: &str) {
    let ended = run(&[], &[(variable, value)]);
    assert_eq!(ended.status.code(), Some(1), "{variable}={value}: {ended:#?}");
    let error = format!("error: {variable}: ");
    assert!(ended.stderr.lines().any(|line| line.starts_with(&error)), "{ended:#?}");
    assert!(!ended.stderr.contains(SECRET), "{ended:#?}");
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_malformed_variable_is_named() {
    assert_refuses("SHIPPING_ADDR", "nowhere");
    assert_refuses("SHIPPING_ADDR", "");
    assert_refuses("SHIPPING_DELAY_MS", "2s");
    assert_refuses("SHIPPING_DELAY_MS", "-1");
    assert_refuses("SHIPPING_DELAY_MS", "99999999999");
    assert_refuses("SHIPPING_TOKENS", "hunter2");
    assert_refuses("SHIPPING_TOKENS", "hunter2=");
    assert_refuses("REDIS_URL", "");
    assert_refuses("REDIS_URL", "redis://:hunter2@[");
    assert_refuses("REDIS_URL", "http://:hunter2@127.0.0.1/");
    assert_refuses("DATABASE_URL", "");
    assert_refuses("DATABASE_URL", "mysql://u:hunter2@127.0.0.1/db");
    assert_refuses("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:port/db");
    assert_refuses("DATABASE_URL", "sqlite::memory:");
    assert_refuses("DATABASE_URL", "sqlite://no/such/folder/shipping.db?mode=rwc");
}

#[test]
fn a_server_nobody_is_is_named_without_its_password() {
    // Nothing listens on port 1: it is reserved for a service that is not in use any more.
    assert_refuses("REDIS_URL", "redis://u:hunter2@127.0.0.1:1/");
    assert_refuses("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/db");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("bound").to_string();
    assert_refuses("SHIPPING_ADDR", &addr);
}

#[test]
fn unknown_arguments_get_the_usage_and_exit_code_2() {
    for arguments in [&["dmeo"][..], &["demo", "demo"]] {
        let ended = run(arguments, &[]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.starts_with("usage: "), "{ended:#?}");
    }
}

#[test]
fn help_lists_every_variable() {
    let ended = run(&["--help"], &[]);
    assert!(ended.status.success());
    for variable in [
        "SHIPPING_ADDR",
        "SHIPPING_DELAY_MS",
        "SHIPPING_TOKENS",
        "DATABASE_URL",
        "REDIS_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_SERVICE_NAME",
    ] {
        assert!(ended.stdout.contains(variable), "{variable}: {ended:#?}");
    }
}
