//! The end of a service that is at work.
#![cfg(unix)]

use std::io::Write as _;
use std::net::TcpStream;

use crate::client::{order, raw_order};
use crate::process::Service;

#[test]
fn sigterm_waits_for_a_handler_whose_client_has_left() {
    let mut service = Service::start(2000);
    let request = raw_order(&service.client.addr, "k", "", &order("a"));
    let mut client = TcpStream::connect(&service.client.addr).expect("it listens");
    client.write_all(request.as_bytes()).expect("it reads");
    service.process.wait_for_log("packing");

    drop(client);
    service.process.terminate();
    let ended = service.process.ended();

    assert!(ended.status.success(), "{ended:#?}");
    let position = |part| {
        ended
            .stderr
            .find(part)
            .unwrap_or_else(|| panic!("no {part:?}: {ended:#?}"))
    };
    assert!(position("placed") < position("drained"), "{ended:#?}");
}

#[test]
fn sigterm_ends_an_idle_service() {
    let service = Service::start(0);

    service.process.terminate();
    let ended = service.process.ended();

    assert!(ended.status.success(), "{ended:#?}");
}
