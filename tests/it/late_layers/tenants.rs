//! Tenants by their host name: the host is no part of a record's identity, nor of what is compared.

use std::convert::Infallible;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::routing::post;
use idem_axum::idempotent;
use idem_tests::{Call, Service};
use reqwest::Method;

use super::Gate;

/// The host that the client has asked: the authority of an HTTP/2 request, the header of an HTTP/1.1 one.
struct Host(String);

impl<S: Sync> FromRequestParts<S> for Host {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let authority = parts.uri.authority().map(Authority::as_str);
        let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        Ok(Self(authority.or(header).unwrap_or_default().to_owned()))
    }
}

#[idempotent(ttl = "1h", scope = global)]
async fn without_the_host(host: Host) -> String {
    host.0
}

#[idempotent(ttl = "1h", scope = host.0)]
async fn scoped_by_the_host(host: Host) -> String {
    host.0
}

fn call(service: &Service, path: &str, host: &str) -> Call {
    let call = service.client.call(Method::POST, path).key("k");
    call.header("host", host.as_bytes())
}

#[tokio::test]
async fn one_key_at_two_hosts_is_one_record_unless_the_scope_names_the_host() {
    let routes = Router::new()
        .route("/without", post(without_the_host))
        .route("/scoped", post(scoped_by_the_host));
    let service = super::service(&Gate::default(), routes, |router| router).await;
    for (path, of_the_second) in [("/without", "acme.example"), ("/scoped", "globex.example")] {
        let first = call(&service, path, "acme.example").send().await;
        assert_eq!(first.body, "acme.example");
        let second = call(&service, path, "globex.example").send().await;
        assert_eq!(second.body, of_the_second, "{path}");
        assert_eq!(second.is_replay(), path == "/without");
        call(&service, path, "acme.example").send().await.assert_replays(&first);
    }
}
