//! Documents made by utoipa tell clients what annotated handlers do, and are valid.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::{Json, Router};
use idem_axum::openapi::PROBLEM_SCHEMA;
use idem_axum::{
    AfterCrash, Idempotency, InFlight, Joint, MemoryBackend, Policy, StoredAnswers, Transaction, idempotent,
};
use idem_tests::{Order, Service, validate_openapi};
use serde_json::{Value, json};
use utoipa::{Modify as _, OpenApi as _};

#[idempotent(ttl = "1m", scope = global)]
#[utoipa::path(post, path = "/plain", request_body = String, responses((status = 201, description = "Placed.", body = String)))]
async fn plain(order: String) -> String {
    order
}

#[idempotent(
    ttl = "1m",
    scope = global,
    header = "x-request-key",
    required = false,
    in_flight = "accept",
    after_crash = "refuse",
    store = "success"
)]
#[utoipa::path(
    put,
    path = "/every-option",
    params(("x-request-key" = String, Header, description = "the author's"), ("other" = String, Header)),
    responses(
        (status = 200, description = "Done.", body = String),
        (status = 404, description = "There is none."),
        (status = 409, description = "Out of stock.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not an order.", body = Problem),
        (status = "5XX", description = "It is us.")
    ),
    extensions(("x-ours" = json!(true))),
)]
async fn every_option() -> StatusCode {
    StatusCode::OK
}

#[idempotent(ttl = "1m", scope = global, key = order, in_flight = "wait", store = "all")]
#[utoipa::path(
    post,
    path = "/natural-key",
    request_body = String,
    responses((status = 200, response = Done), (status = "default", description = "Anything."), (status = 500, description = "It is us."))
)]
async fn natural_key(order: String) -> String {
    order
}

#[idempotent(ttl = "1m", scope = global)]
#[utoipa::path(post, path = "/transaction", request_body = String, responses((status = 201, description = "Placed.", body = String)))]
async fn transacting(_: Transaction, order: String) -> String {
    order
}

#[idempotent(ttl = "1m", scope = global)]
#[utoipa::path(post, path = "/joint", request_body = String, responses((status = 201, description = "Placed.", body = String)))]
async fn joining(_: Joint, order: String) -> String {
    order
}

#[utoipa::path(get, path = "/plain", responses((status = 200, description = "Done.", body = String)))]
#[expect(dead_code, reason = "it is only described")]
async fn not_annotated() -> &'static str {
    ""
}

/// An error of the author's own.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is only described")]
struct Problem {
    code: String,
}

/// A response that is described once.
#[derive(utoipa::ToResponse)]
#[response(description = "Done.")]
#[expect(dead_code, reason = "it is only described")]
struct Done(String);

#[derive(utoipa::OpenApi)]
#[openapi(
    paths(plain, every_option, natural_key, transacting, joining, not_annotated),
    components(responses(Done), schemas(Problem))
)]
struct Api;

fn idempotency() -> Idempotency {
    Idempotency::new(MemoryBackend::new())
}

fn described_by(idempotency: &Idempotency) -> Value {
    let mut document = Api::openapi();
    idempotency.modify(&mut document);
    let document = serde_json::to_value(document).expect("JSON");
    assert_valid(&document);
    document
}

fn assert_valid(document: &Value) {
    if let Err(said) = validate_openapi(&document.to_string()) {
        panic!("{said}");
    }
}

fn operation<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    &document["paths"][path][method]
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn names(value: &Value) -> BTreeSet<&str> {
    let members = value.as_object().into_iter().flatten();
    members.map(|(name, _)| name.as_str()).collect()
}

fn codes(response: &Value) -> Vec<&str> {
    let schema = &response["content"]["application/problem+json"]["schema"];
    // The second of two, where the author has one too.
    let ours = schema["anyOf"].get(1).unwrap_or(schema);
    assert_eq!(
        ours["allOf"][0]["$ref"],
        format!("#/components/schemas/{PROBLEM_SCHEMA}"),
        "{response}"
    );
    let codes = ours["allOf"][1]["properties"]["code"]["enum"].as_array();
    let codes: Vec<_> = codes.expect("codes").iter().filter_map(Value::as_str).collect();
    let examples = names(&response["content"]["application/problem+json"]["examples"]);
    assert_eq!(codes.iter().copied().collect::<BTreeSet<_>>(), examples);
    codes
}

fn is_marked(response: &Value) -> bool {
    response["headers"]["Idempotent-Replayed"]["schema"]["type"] == "boolean"
}

#[test]
fn a_document_without_it_says_nothing_and_the_validator_is_not_easily_pleased() {
    let mut document = serde_json::to_value(Api::openapi()).expect("JSON");
    assert_eq!(
        operation(&document, "post", "/plain")["x-idempotency"]["natural_key"],
        false
    );
    assert_valid(&document);
    document["paths"]["/plain"]["post"]["parameters"] = json!([{ "name": "k", "in": "headers" }]);
    validate_openapi(&document.to_string()).expect_err("there is no such place");
}

#[test]
fn an_operation_has_the_header_the_marker_and_the_problems() {
    let document = described_by(&idempotency());
    let plain = operation(&document, "post", "/plain");
    let [key] = plain["parameters"].as_array().expect("parameters").as_slice() else {
        panic!("{plain}");
    };
    assert_eq!(
        (&key["name"], &key["in"]),
        (&json!("Idempotency-Key"), &json!("header"))
    );
    assert_eq!(key["required"], true);
    let pattern = r#"^([!#-+\--~]([ -+\--~]{0,253}[!-+\--~])?|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#;
    assert_eq!(
        key["schema"],
        json!({ "type": "string", "minLength": 1, "maxLength": 512, "pattern": pattern })
    );
    assert!(
        key["description"]
            .as_str()
            .is_some_and(|text| text.contains("a retry has the same key"))
    );

    let responses = &plain["responses"];
    assert_eq!(names(responses), BTreeSet::from(["201", "400", "409", "422", "503"]));
    assert!(is_marked(&responses["201"]));
    assert_eq!(codes(&responses["400"]), ["key-missing", "key-invalid"]);
    assert_eq!(codes(&responses["409"]), ["in-flight", "response-not-stored"]);
    assert_eq!(codes(&responses["422"]), ["key-reused"]);
    assert_eq!(codes(&responses["503"]), ["backend-unavailable"]);
    for (status, retries) in [("400", false), ("409", true), ("422", false), ("503", true)] {
        assert_eq!(
            responses[status]["headers"]["Retry-After"].is_object(),
            retries,
            "{status}"
        );
        assert!(responses[status]["headers"]["Link"].is_null());
        assert!(!is_marked(&responses[status]), "{status}");
    }
    assert!(plain["x-idempotency"].is_null());
}

#[test]
fn every_option_shows_and_what_the_author_says_stays() {
    let document = described_by(&idempotency());
    let every = operation(&document, "put", "/every-option");
    let parameters = every["parameters"].as_array().expect("parameters");
    let named: Vec<_> = parameters.iter().map(|parameter| &parameter["name"]).collect();
    assert_eq!(named, ["other", "X-Request-Key"]);
    assert_eq!(parameters[1]["required"], false);
    assert_eq!(every["x-ours"], true);

    let responses = &every["responses"];
    assert_eq!(
        names(responses),
        BTreeSet::from(["200", "202", "400", "404", "409", "422", "503", "5XX"])
    );
    assert!(responses["202"]["headers"]["Retry-After"].is_object());
    assert!(responses["202"]["content"].is_null());
    assert_eq!(codes(&responses["400"]), ["key-invalid"]);
    assert_eq!(codes(&responses["409"]), ["outcome-unknown", "response-not-stored"]);
    let marked: Vec<_> = ["200", "202", "404", "409", "5XX"]
        .into_iter()
        .filter(|status| is_marked(&responses[status]))
        .collect();
    assert_eq!(marked, ["200"]);

    let conflict = &responses["409"];
    assert_eq!(
        conflict["content"]["application/problem+json"]["schema"]["anyOf"][0]["$ref"],
        "#/components/schemas/Problem"
    );
    let description = conflict["description"].as_str().expect("a description");
    assert!(
        description.starts_with("Out of stock.\n\n- `outcome-unknown`: "),
        "{description}"
    );
    assert_eq!(
        names(&responses["422"]["content"]),
        BTreeSet::from(["application/json", "application/problem+json"])
    );
}

#[test]
fn a_natural_key_is_no_parameter_and_a_response_described_elsewhere_is_marked_here_alone() {
    let document = described_by(&idempotency());
    let natural = operation(&document, "post", "/natural-key");
    assert!(natural["parameters"].is_null());
    let responses = &natural["responses"];
    assert_eq!(codes(&responses["400"]), ["key-invalid"]);
    for status in ["200", "default", "500"] {
        assert!(is_marked(&responses[status]), "{status}");
    }
    assert_eq!(responses["200"]["description"], "Done.");
    assert!(!is_marked(&document["components"]["responses"]["Done"]));
}

#[test]
fn a_handler_with_a_transaction_may_be_undone_or_nobody_knows() {
    let document = described_by(&idempotency());
    for path in ["/transaction", "/joint"] {
        let responses = &operation(&document, "post", path)["responses"];
        assert_eq!(
            names(responses),
            BTreeSet::from(["201", "400", "409", "422", "500", "503"]),
            "{path}"
        );
        assert_eq!(codes(&responses["500"]), ["rolled-back"]);
        assert!(responses["500"]["headers"]["Retry-After"].is_null());
        assert_eq!(
            codes(&responses["503"]),
            ["backend-unavailable", "rolled-back", "not-committed"]
        );
    }
}

#[test]
fn what_bounds_runs_is_described_where_it_is_set() {
    let limited = idempotency()
        .with_max_in_flight(8)
        .with_defaults(Policy::new().with_max_attempts(3));
    let responses = operation(&described_by(&limited), "post", "/plain")["responses"].clone();
    assert_eq!(codes(&responses["503"]), ["backend-unavailable", "too-busy"]);
    assert_eq!(
        codes(&responses["409"]),
        ["in-flight", "outcome-unknown", "response-not-stored"]
    );
}

#[test]
fn what_is_not_annotated_stays_as_it_is_and_twice_is_once() {
    let mut document = Api::openapi();
    idempotency().modify(&mut document);
    let once = serde_json::to_value(&document).expect("JSON");
    let plain = serde_json::to_value(Api::openapi()).expect("JSON");
    assert_eq!(operation(&once, "get", "/plain"), operation(&plain, "get", "/plain"));
    idempotency().modify(&mut document);
    assert_eq!(serde_json::to_value(&document).expect("JSON"), once);
}

#[test]
fn what_was_set_on_the_layer_shows_where_the_attribute_leaves_it_open() {
    let defaults = Policy::new()
        .with_header("x-default")
        .with_required(false)
        .with_in_flight(InFlight::Accept)
        .with_after_crash(AfterCrash::Refuse)
        .with_store(StoredAnswers::All);
    let set_up = idempotency().with_defaults(defaults).with_strict_keys();
    let document = described_by(&set_up.with_documentation("https://example.com/idempotency"));
    let plain = operation(&document, "post", "/plain");
    let key = &plain["parameters"][0];
    assert_eq!((&key["name"], &key["required"]), (&json!("X-Default"), &json!(false)));
    assert_eq!(key["schema"]["pattern"], r#"^"([ !#-\[\]-~]|\\["\\]){1,255}"$"#);
    let responses = &plain["responses"];
    assert!(responses["202"].is_object());
    assert_eq!(codes(&responses["409"]), ["outcome-unknown", "response-not-stored"]);
    assert!(responses["409"]["headers"]["Link"].is_object());
    let example = &responses["422"]["content"]["application/problem+json"]["examples"]["key-reused"]["value"];
    assert_eq!(example["type"], "https://example.com/idempotency#key-reused");
    // The attribute beats them.
    let every = operation(&document, "put", "/every-option");
    assert_eq!(every["parameters"][1]["name"], "X-Request-Key");
    assert!(!is_marked(&every["responses"]["404"]));
    let natural = operation(&document, "post", "/natural-key");
    assert!(natural["responses"]["202"].is_null());
}

#[test]
fn problems_in_a_format_of_the_applications_own_have_no_schema_of_ours() {
    let document = described_by(&idempotency().with_problem_response(|_| Json(json!({ "errors": [] }))));
    let responses = &operation(&document, "post", "/plain")["responses"];
    assert!(responses["409"]["content"].is_null());
    assert!(responses["409"]["headers"]["Retry-After"].is_object());
    assert!(document["components"]["schemas"][PROBLEM_SCHEMA].is_null());
}

/// Who checks requests against the document lets through what the service takes.
#[tokio::test]
async fn the_longest_string_that_is_a_key_is_the_longest_that_the_schema_allows() {
    let longest = format!("\"{}\"", r#"\""#.repeat(255));
    for idempotency in [idempotency(), idempotency().with_strict_keys()] {
        let document = described_by(&idempotency);
        let schema = &operation(&document, "post", "/plain")["parameters"][0]["schema"];
        assert_eq!(schema["maxLength"], longest.len());
        let service = Service::wrapped(idempotency, Router::new(), |router| router).await;
        let send = |key: &str| service.client.order(key, &Order::new("a")).send();
        assert_eq!(send(&longest).await.status, StatusCode::CREATED);
        let longer = format!("\"{}\"", r#"\""#.repeat(256));
        assert_eq!(send(&longer).await.problem(), "key-invalid");
    }
}

#[tokio::test]
async fn the_schema_has_the_members_and_codes_that_are_documented_and_sent() {
    let document = described_by(&idempotency());
    let schema = &document["components"]["schemas"][PROBLEM_SCHEMA];
    let page = include_str!("../../docs/http.md");
    let headings = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    let codes = texts(&schema["properties"]["code"]["enum"]);
    assert_eq!(codes, headings.collect());

    let service = Service::memory(Router::new()).await;
    service.client.order("k", &Order::new("a")).send().await;
    let reused = service.client.order("k", &Order::new("b")).send().await;
    assert_eq!(names(&reused.json()), names(&schema["properties"]));
    assert_eq!(texts(&schema["required"]), names(&reused.json()));
    let responses = &operation(&document, "post", "/plain")["responses"];
    let example = &responses["422"]["content"]["application/problem+json"]["examples"]["key-reused"]["value"];
    assert_eq!(*example, reused.json());
}
