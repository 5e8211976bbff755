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
    assert_eq!(
        statuses,
        ["201", "400", "401", "409", "413", "415", "422", "500", "503"]
    );
    for status in ["201", "422"] {
        assert!(
            responses[status]["headers"]["Idempotent-Replayed"].is_object(),
            "{status}"
        );
    }
    for status in ["409", "503"] {
        assert!(responses[status]["headers"]["Retry-After"].is_object(), "{status}");
    }
    let media_types = responses["422"]["content"].as_object().expect("media types");
    assert_eq!(
        media_types.keys().collect::<Vec<_>>(),
        ["application/json", "application/problem+json", "text/plain"]
    );
}

#[tokio::test]
async fn a_body_that_cannot_be_taken_is_answered_as_the_document_says() {
    let service = Service::start(0);
    let document = service.client.get_bare("/openapi.json").await.json();
    let responses = &document["paths"]["/shipping/order"]["post"]["responses"];
    let an_order = order("a").to_string();
    // By one byte: what is still on its way when the answer is sent would break the connection.
    let too_large = " ".repeat(2 * 1024 * 1024 + 1);
    for (status, media_type, sent_as, body) in [
        (400, "text/plain", "application/json", "{"),
        (413, "text/plain", "application/json", &too_large),
        (415, "text/plain", "text/plain", &an_order),
        (422, "text/plain", "application/json", r#"{"order_id": 1}"#),
        (
            422,
            "application/json",
            "application/json",
            r#"{"order_id": "", "vendor": "v", "address": "a"}"#,
        ),
    ] {
        let answer = service.client.post_raw("k", sent_as, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let content_type = answer.header("content-type").expect("it has a body");
        assert!(content_type.starts_with(media_type), "{answer:?}");
        let described = &responses[status.to_string()]["content"][media_type];
        assert!(described.is_object(), "{status} {media_type}");
    }
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
