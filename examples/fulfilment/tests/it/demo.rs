//! The demo, which checks itself, and the server that it starts.

use std::net::TcpStream;
use std::process::Command;

use fulfilment::nats_server::NatsServer;

use crate::scene::program;

#[test]
fn the_demo_comes_out_as_it_must() {
    let variables = [("FULFILMENT_ORDERS", "100"), ("FULFILMENT_SECONDS", "4")];

    let output = Command::new(program())
        .arg("demo")
        .env_remove("REDIS_URL")
        .envs(variables)
        .output()
        .expect("it runs");

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        said.starts_with("100 orders within 4 s") && said.contains("records in SQLite"),
        "{said}"
    );
    assert_eq!(figure(&said, "shipments"), 98, "{said}");
    assert_eq!(figure(&said, "shipped twice"), 0, "{said}");
    assert_eq!(figure(&said, "set aside"), 2, "{said}");
    assert!(figure(&said, "kills") > 0, "nobody was killed: {said}");
    assert!(
        figure(&said, "lost acknowledgements") > 0,
        "no acknowledgement was lost: {said}"
    );
    assert!(said.trim_end().ends_with("every order is shipped once"), "{said}");
}

/// The number beside a label.
fn figure(said: &str, label: &str) -> usize {
    let mut lines = said.lines().filter_map(|line| line.strip_prefix(label));
    let number = lines.find_map(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("`{label}` has no number: {said}"))
}

#[test]
fn without_the_server_the_demo_says_how_to_get_it() {
    for program_of_server in ["/nowhere/nats-server", "no-such-nats-server"] {
        let output = Command::new(program())
            .arg("demo")
            .env("FULFILMENT_NATS_SERVER", program_of_server)
            .output()
            .expect("it runs");

        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        let expected = format!("error: there is no program `{program_of_server}`; `cargo xtask setup` installs it");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[tokio::test]
async fn a_server_that_is_dropped_listens_no_more() {
    let server = NatsServer::start().await.expect("it starts");
    let addr = server.url().strip_prefix("nats://").expect("a URL").to_owned();
    TcpStream::connect(&addr).expect("it listens");

    drop(server);

    TcpStream::connect(&addr).expect_err("it has ended");
}
