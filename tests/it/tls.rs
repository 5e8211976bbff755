//! Redis over TLS, by URL and with a client that has certificates of its own.

use std::cell::Cell;
use std::fs;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::redis::{Client, TlsCertificates};
use idem_axum::{BackendErrorKind, RedisBackend};
use idem_tests::{Certificates, Order, RedisServer, Service, in_time};

/// A server that speaks TLS beside what the tests need.
struct Secured {
    server: RedisServer,
    port: u16,
    certificates: Certificates,
}

impl Secured {
    async fn start() -> Self {
        // An application chooses a provider once; the other test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = Certificates::new();
        let files = [&certificates.root, &certificates.certificate, &certificates.key];
        let files = files.map(|file| file.display().to_string());
        let port = Cell::new(0);
        let server = RedisServer::start_on_ports(|tls| {
            port.set(tls);
            let [authority, certificate, key] = &files;
            let settings = format!(
                "--tls-auth-clients no --tls-port {tls} --tls-ca-cert-file {authority} --tls-cert-file {certificate} \
                 --tls-key-file {key}"
            );
            settings.split(' ').map(str::to_owned).collect()
        })
        .await;
        let port = port.get();
        Self {
            server,
            port,
            certificates,
        }
    }

    fn url(&self) -> String {
        format!("rediss://localhost:{}/", self.port)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_answers_and_messages_go_over_tls() {
    in_time(async {
        let redis = Secured::start().await;
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(fs::read(&redis.certificates.root).expect("the file is there")),
        };
        let client = Client::build_with_tls(redis.url(), certificates).expect("a client");
        let backend = RedisBackend::connect_with(client).await.expect("it is known");
        let service = Service::start(backend, Router::new(), None).await;
        let order = Order::new("o").held();
        let call = || service.client.order_at("/orders/waiting-long", "k", &order).send();
        let first = tokio::spawn(call());
        service.app.wait_until_started(1).await;
        let second = tokio::spawn(call());
        redis.server.wait_for_calls("subscribe", 1).await;
        redis.server.wait_for_calls("pttl", 2).await;
        service.app.open_gate();
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CREATED);
        second.await.expect("no panic").assert_replays(&first);
        // Nothing went round TLS: every client but the one that asks is on the other port.
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut redis.server.connection().await)
            .await
            .expect("CLIENT is allowed");
        let over_tls = format!(":{} ", redis.port);
        assert_eq!(
            clients.lines().filter(|client| client.contains(&over_tls)).count(),
            2,
            "{clients}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_nobody_vouches_for_is_not_trusted() {
    let redis = Secured::start().await;
    let error = RedisBackend::connect(&redis.url())
        .await
        .expect_err("its authority is unknown");
    assert_eq!(error.kind(), BackendErrorKind::Unavailable);
    let source = std::error::Error::source(&error).expect("it says why").to_string();
    assert!(source.contains("certificate"), "{source}");
}
