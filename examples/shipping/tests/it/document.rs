//! The document at `/openapi.json`.

use idem_tests::validate_openapi;

use crate::client::order;
use crate::process::Service;

#[tokio::test]
async fn the_document_is_valid_and_says_what_a_retry_gets() {
    let service = Service::start(0);

    let answer = service.client.get_bare("/openapi.json").await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    if let Err(said) = validate_openapi(&document.to_string()) {
        panic!("{said}");
    }
    assert_eq!(document["openapi"], "3.1.0");
    let placing = &document["paths"]["/shipping/order"]["post"];
    let key = &placing["parameters"][0];
    assert_eq!(key["name"], "Idempotency-Key");
    assert_eq!(key["in"], "header");
    assert_eq!(key["required"], true);
    let responses = placing["responses"].as_object().expect("responses");
    let statuses: Vec<_> = responses.keys().map(String::as_str).collect();
    assert_eq!(statuses, ["201", "400", "401", "409", "422", "503"]);
    for status in ["201", "422"] {
        assert!(
            responses[status]["headers"]["Idempotent-Replayed"].is_object(),
            "{status}"
        );
    }
    for status in ["409", "503"] {
        assert!(responses[status]["headers"]["Retry-After"].is_object(), "{status}");
    }
    let both = responses["422"]["content"].as_object().expect("media types");
    assert_eq!(
        both.keys().collect::<Vec<_>>(),
        ["application/json", "application/problem+json"]
    );
}

#[tokio::test]
async fn the_answers_have_the_members_that_the_document_names() {
    let service = Service::start(0);
    let document = service.client.get_bare("/openapi.json").await.json();
    let members = |schema: &str| {
        let properties = &document["components"]["schemas"][schema]["properties"];
        let properties = properties.as_object().expect("properties");
        properties.keys().cloned().collect::<Vec<_>>()
    };
    let sent = |answer: &crate::client::Answer| {
        let body = answer.json();
        let mut names: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
        names.sort();
        names
    };
    let placed = service
        .client
        .post("/shipping/order", "acme-demo", "k", &order("a"))
        .await;
    let reused = service
        .client
        .post("/shipping/order", "acme-demo", "k", &order("b"))
        .await;
    let unknown = service.client.post("/shipping/order", "nobody", "k", &order("a")).await;
    for (answer, status, schema) in [
        (placed, 201, "Receipt"),
        (reused, 422, "IdempotencyProblem"),
        (unknown, 401, "ErrorBody"),
    ] {
        assert_eq!(answer.status, status);
        let mut named = members(schema);
        named.sort();
        assert_eq!(sent(&answer), named, "{schema}");
    }
}
