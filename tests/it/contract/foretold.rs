//! Whether what `why` says of each request is what the service then answers.
//!
//! Owns the guards of the stage's routes, written down as an operator would: the name of the operation, the scope, the options. Before
//! each request of a script, the record is read as an operator reads it, and the answer is foretold.

use std::time::{Duration, SystemTime};

use axum::http::Request as HttpRequest;
use bytes::Bytes;
use idem_axum::{AfterCrash, Compared, InFlight, Policy};
use idem_core::inspect::Operator;
use idem_core::{IdempotencyKey, Scope};
use idem_http::fingerprint::check_numbers;
use idem_http::settings::KeyFormat;
use idem_http::why::{ComparedValue, Forecast, Guard};
use idem_tests::Answer;
use serde_json::{Value, json};

use super::case::{Line, Request};
use super::forms::Form;
use super::stage::is_uuid;

/// What a request gets, as far as both a prediction and an answer can say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Runs,
    Replays(u16),
    Waits,
    Accepted,
    Refused(String),
}

/// What an operator would say of the request; `None` if an operator cannot say it, because of what the service does besides.
pub(super) async fn foretell(operator: &Operator, form: Form, case: &str, request: &Request) -> Option<Fate> {
    let (path, written) = (request.path.split('?').next()?, written(request)?);
    let guard = guard(form, case, path, request)?;
    // Extractors that refuse a request before it is claimed, and a layer that limits its body.
    if matches!(path, "/json" | "/text" | "/by-value" | "/limited") && !is_extracted(path, request) {
        return None;
    }
    let record = match guard.record_key(&written) {
        Ok(Some(key)) => operator.show(&key).await.ok()?.map(|details| details.record),
        _ => None,
    };
    Some(match guard.forecast(&written, record, SystemTime::now()) {
        Forecast::Runs(_) | Forecast::RunsUnprotected => Fate::Runs,
        Forecast::Replays(status) => Fate::Replays(status.as_u16()),
        Forecast::Waits(_) => Fate::Waits,
        Forecast::Accepted(_) => Fate::Accepted,
        Forecast::Refused(problem) => Fate::Refused(problem.code().to_owned()),
        other => panic!("{other:?} is new"),
    })
}

/// What the request has got.
pub(super) fn fate(answer: Option<&Answer>) -> Fate {
    let Some(answer) = answer else { return Fate::Runs };
    let code = answer
        .headers
        .get("idempotency-code")
        .and_then(|code| code.to_str().ok());
    match code {
        _ if answer.is_replay() => Fate::Replays(answer.status.as_u16()),
        Some("accepted") => Fate::Accepted,
        // A handler that panicked has run.
        None | Some("panicked") => Fate::Runs,
        Some(code) => Fate::Refused(code.to_owned()),
    }
}

fn is_extracted(path: &str, request: &Request) -> bool {
    match path {
        "/text" => std::str::from_utf8(&request.body).is_ok(),
        "/limited" => request.body.len() <= 1_000,
        _ => {
            let is_json = |line: &Line| matches!(line, Line::Field("content-type", value) if value.starts_with(b"application/json"));
            request.lines.iter().any(is_json) && serde_json::from_slice::<Value>(&request.body).is_ok()
        }
    }
}

/// The request as an operator has it from a log; `None` if it is malformed on purpose.
fn written(request: &Request) -> Option<HttpRequest<Bytes>> {
    let mut written = HttpRequest::builder().method(request.method).uri(request.path);
    for line in &request.lines {
        match line {
            Line::Field(name, value) => written = written.header(*name, &value[..]),
            Line::Raw(_) => return None,
        }
    }
    written.body(request.body.clone().into()).ok()
}

fn field(request: &Request, name: &str) -> String {
    let found = request.lines.iter().find_map(|line| match line {
        Line::Field(field, value) if *field == name => Some(String::from_utf8_lossy(value).into_owned()),
        _ => None,
    });
    found.unwrap_or_default()
}

fn guard(form: Form, case: &str, path: &str, request: &Request) -> Option<Guard> {
    let token = format!("{case}|{}", request.tenant?);
    let (a, b) = (field(request, "x-a"), field(request, "x-b"));
    let method = request.method;
    let operation = match path {
        "/uncompared" => "uncompared".to_owned(),
        "/shared" | "/shared/again" | "/deployed" => "shared".to_owned(),
        _ if path.starts_with("/items/") => format!("{method} /items/{{item}}"),
        _ => format!("{method} {path}"),
    };
    let is_named = matches!(operation.as_str(), "uncompared" | "shared");
    let operation = match form {
        Form::Layer if !is_named => format!("layer {operation}"),
        _ => operation,
    };
    let one = |value: &str| Scope::of(value);
    let scope = match path {
        "/global" => Scope::global(),
        "/in-pair" => Scope::tuple([one(&token), one(&a), one(&b)]),
        "/nested" => Scope::tuple([one(&token), Scope::tuple([one(&a), one(&b)])]),
        "/by-a" => one(&a),
        // The backend of these routes is down, and one has no guard.
        "/down" | "/down/unprotected" | "/unlayered" => return None,
        _ => one(&token),
    };
    let mut guard = Guard::new(operation, scope);
    guard.ttl = Duration::from_mins(1);
    guard.policy = policy(path);
    guard.settings.strict_keys = path == "/strict";
    guard.settings.key_format = (path == "/uuid").then(|| KeyFormat::new(is_uuid));
    if path == "/natural" {
        let body = String::from_utf8(request.body.clone()).ok()?;
        guard.natural_key = Some(IdempotencyKey::of(&body));
    }
    let value = match path {
        "/by-value" => Some(serde_json::from_slice::<Value>(&request.body).ok()?["order"].clone()),
        "/by-parts" => Some(json!([a, b])),
        "/deployed" => Some(json!(a)),
        _ => None,
    };
    let parameters = Some(Vec::new());
    guard.value = value
        .filter(|value| check_numbers(value).is_ok())
        .map(|value| ComparedValue { value, parameters });
    Some(guard)
}

fn policy(path: &str) -> Policy {
    let policy = Policy::new();
    let refusing = policy
        .with_in_flight(InFlight::Wait)
        .with_after_crash(AfterCrash::Refuse);
    match path {
        "/other-header" => policy.with_header("x-request-key"),
        "/optional" => policy.with_required(false),
        "/accepting" => policy.with_in_flight(InFlight::Accept),
        "/waiting" | "/impatient" => policy.with_in_flight(InFlight::Wait),
        "/refusing" | "/brief-unknown" => refusing,
        "/refusing/everything" => policy.with_after_crash(AfterCrash::Refuse),
        "/uncompared" => policy.with_fingerprint(Compared::Nothing),
        _ => policy,
    }
}
