//! `with_fingerprint_key`: what is stored of a request can be checked by nobody without the key.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::routing::post;
use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend, PostgresBackend, RedisBackend, idempotent};
use idem_http::fingerprint::{ComparedPath, RequestHash, of_value};
use idem_tests::{Answer, App, PostgresServer, RedisServer, Service, in_time};

const BODY: &str = "password=correct-horse-battery";
const OTHER_BODY: &str = "password=tr0ub4dor&3";

#[idempotent(ttl = "1h", scope = global)]
async fn by_request(body: String) -> String {
    body
}

#[idempotent(ttl = "1h", scope = global, fingerprint = body)]
async fn by_value(body: String) -> String {
    body
}

#[idempotent(ttl = "1h", scope = global, fingerprint = "none")]
async fn by_nothing(body: String) -> String {
    body
}

const COMPARING: [&str; 3] = ["/request", "/value", "/layer"];

fn routes(idempotency: &Idempotency) -> Router<App> {
    let layer = IdempotencyLayer::new(idempotency.clone(), Duration::from_hours(1)).scope_global();
    let layered = Router::new()
        .route("/layer", post(async |body: String| body))
        .layer(layer);
    Router::new()
        .route("/request", post(by_request))
        .route("/value", post(by_value))
        .route("/nothing", post(by_nothing))
        .merge(layered)
}

async fn serve(idempotency: Idempotency) -> Service {
    let routes = routes(&idempotency);
    Service::wrapped(idempotency, routes, |router| router).await
}

/// Where the records of several processes are.
enum Server {
    Redis(RedisServer),
    /// And the schema.
    Postgres(Arc<PostgresServer>, String),
}

impl Server {
    /// One of each kind, without records.
    async fn each() -> [Self; 2] {
        let postgres = PostgresServer::shared().await;
        let (_backend, schema) = postgres.backend().await;
        [
            Self::Redis(RedisServer::start().await),
            Self::Postgres(postgres, schema),
        ]
    }

    /// As another process would set it up.
    async fn idempotency(&self) -> Idempotency {
        match self {
            Self::Redis(server) => {
                Idempotency::new(RedisBackend::connect(&server.url()).await.expect("the server answers"))
            }
            Self::Postgres(server, schema) => {
                Idempotency::new(PostgresBackend::new(server.pool().await).with_schema(schema))
            }
        }
    }

    /// All that is stored, of all records.
    async fn stored(&self) -> Vec<u8> {
        match self {
            Self::Redis(server) => stored_on_redis(server).await,
            Self::Postgres(server, schema) => {
                let all = "convert_to(key, 'UTF8') || token || fingerprint || coalesce(payload, '')";
                let sql = format!("SELECT string_agg({all}, ''::bytea) FROM {schema}.idem_records");
                server.query(&sql).await
            }
        }
    }
}

async fn call(service: &Service, path: &str, key: &str, body: &'static str) -> Answer {
    let call = service.client.call(Method::POST, path);
    call.key(key).body(body).send().await
}

#[tokio::test]
async fn with_a_key_equal_requests_are_replayed_and_others_refused_in_every_form() {
    let servers = Server::each().await;
    let mut idempotencies = vec![Idempotency::new(MemoryBackend::new())];
    for server in &servers {
        idempotencies.push(server.idempotency().await);
    }
    for idempotency in idempotencies {
        let service = serve(idempotency.with_fingerprint_key([7; 32])).await;
        for path in COMPARING {
            let first = call(&service, path, "k", BODY).await;
            assert_eq!(first.status, StatusCode::OK, "{path}");
            call(&service, path, "k", BODY).await.assert_replays(&first);
            assert_eq!(
                call(&service, path, "k", OTHER_BODY).await.problem(),
                "key-reused",
                "{path}"
            );
        }
        let first = call(&service, "/nothing", "k", BODY).await;
        call(&service, "/nothing", "k", OTHER_BODY).await.assert_replays(&first);
    }
}

async fn stored_on_redis(server: &RedisServer) -> Vec<u8> {
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let keys: Vec<String> = redis_command("KEYS", "idem:*")
        .query_async(&mut connection)
        .await
        .expect("keys");
    let mut all = Vec::new();
    for key in keys {
        let value: Vec<u8> = redis_command("GET", &key)
            .query_async(&mut connection)
            .await
            .expect("a value");
        all.extend(value);
    }
    all
}

fn redis_command(name: &str, argument: &str) -> redis::Cmd {
    let mut command = redis::cmd(name);
    command.arg(argument);
    command
}

/// What whoever guesses a body compares with the records.
fn guesses() -> [[u8; 32]; 2] {
    let content_type = HeaderMap::new();
    let mut request = RequestHash::new(&Method::POST, &Uri::from_static("/request"), &content_type);
    request.update(BODY.as_bytes());
    let path = ComparedPath::Parameters(0, &mut std::iter::empty());
    let value = of_value(&Method::POST, &Uri::from_static("/value"), path, BODY.into());
    let mut digest = [0; 32];
    digest.copy_from_slice(&value.to_bytes()[1..]);
    [request.finish(), digest]
}

#[tokio::test]
async fn a_guessed_body_is_found_in_the_records_only_without_a_key() {
    for (key, found) in [(None, true), (Some(b"a key"), false)] {
        for server in Server::each().await {
            let idempotency = server.idempotency().await;
            let service = serve(match key {
                Some(key) => idempotency.with_fingerprint_key(key),
                None => idempotency,
            })
            .await;
            for path in ["/request", "/value"] {
                assert_eq!(call(&service, path, "k", BODY).await.status, StatusCode::OK);
            }
            let stored = server.stored().await;
            for guess in guesses() {
                let is_found = stored.windows(guess.len()).any(|bytes| bytes == guess);
                assert_eq!(is_found, found, "with the key {key:?}");
            }
        }
    }
}

#[tokio::test]
async fn processes_with_one_key_compare_and_with_another_key_replay_without_comparing() {
    in_time(async {
        for server in Server::each().await {
            let old = serve(server.idempotency().await.with_fingerprint_key("old")).await;
            let same = serve(server.idempotency().await.with_fingerprint_key("old")).await;
            let new = serve(server.idempotency().await.with_fingerprint_key("new")).await;
            let none = serve(server.idempotency().await).await;
            for path in COMPARING {
                let first = call(&old, path, "k", BODY).await;
                call(&same, path, "k", BODY).await.assert_replays(&first);
                assert_eq!(call(&same, path, "k", OTHER_BODY).await.problem(), "key-reused");
                for changed in [&new, &none] {
                    call(changed, path, "k", BODY).await.assert_replays(&first);
                    call(changed, path, "k", OTHER_BODY).await.assert_replays(&first);
                }
            }
        }
    })
    .await;
}

#[test]
fn the_debug_form_of_an_idempotency_does_not_show_its_key() {
    let idempotency = Idempotency::new(MemoryBackend::new()).with_fingerprint_key("hush-hush");
    let shown = format!("{idempotency:?}");
    assert!(shown.contains("FingerprintKey"), "{shown}");
    assert!(
        !shown.contains("hush") && !shown.contains("104, 117, 115, 104"),
        "{shown}"
    );
}

#[test]
#[should_panic = "the fingerprint key is empty"]
fn an_empty_key_is_a_panic_at_set_up() {
    let _idempotency = Idempotency::new(MemoryBackend::new()).with_fingerprint_key("");
}
