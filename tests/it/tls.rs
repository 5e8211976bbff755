//! Redis over TLS, by URL and with a client that has certificates of its own.

use std::cell::Cell;
use std::fs;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::redis::{Client, TlsCertificates};
use idem_axum::{BackendErrorKind, RedisBackend};
use idem_tests::{Order, RedisServer, Service, in_time};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

/// A server that speaks TLS beside what the tests need, and the certificate to know it by.
struct Secured {
    server: RedisServer,
    port: u16,
    root: String,
    _certificates: TempDir,
}

impl Secured {
    async fn start() -> Self {
        // An application chooses a provider once; the other test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("a certificate");
        let key = KeyPair::generate().expect("a key");
        let names = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = names.signed_by(&key, &authority).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str, pem: &str| {
            let path = folder.path().join(name);
            fs::write(&path, pem).expect("the folder is ours");
            path.display().to_string()
        };
        let root = authority.pem();
        let files = [
            file("root.pem", &root),
            file("certificate.pem", &certificate.pem()),
            file("key.pem", &key.serialize_pem()),
        ];
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
            root,
            _certificates: folder,
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
            root_cert: Some(redis.root.clone().into_bytes()),
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
