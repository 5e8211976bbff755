//! Which answers are kept, by their status.

use super::case::{Case, Expect, case, post, request};
use super::stage::{Content, Made, made};

pub(super) fn kept_at(path: &'static str, name: &'static str, source: &'static str, made: Made) -> Case {
    let script = [
        post(path).key("k").answers(made.status()),
        post(path).key("k").replays(),
    ];
    case(name, source, script).answering([made])
}

fn kept(name: &'static str, source: &'static str, made: Made) -> Case {
    kept_at("/plain", name, source, made)
}

/// A retry runs, and what it answers is kept.
pub(super) fn released_at(path: &'static str, name: &'static str, source: &'static str, first: Made) -> Case {
    let script = [
        post(path).key("k").answers(first.status()),
        post(path).key("k").runs(),
        post(path).key("k").is(Expect::Replays(1)),
    ];
    case(name, source, script).answering([first, made(201)])
}

fn released(name: &'static str, source: &'static str, first: Made) -> Case {
    released_at("/plain", name, source, first)
}

pub(super) fn cases() -> Vec<Case> {
    let answers = [successes(), redirections(), client_errors(), failures()];
    answers
        .into_iter()
        .chain([not_yet(), ambiguous(), chosen()])
        .flatten()
        .collect()
}

fn successes() -> Vec<Case> {
    vec![
        kept("200 is kept", "RFC 9110 section 15.3.1; draft section 2.6", made(200)),
        kept(
            "201 is kept",
            "RFC 9110 section 15.3.2",
            made(201).line("location", "/orders/2"),
        ),
        kept("202 of the handler's own is kept", "RFC 9110 section 15.3.3", made(202)),
        kept("203 is kept", "RFC 9110 section 15.3.4", made(203)),
        case(
            "204 is kept and has no body, whatever the handler gave it",
            "RFC 9110 section 15.3.5",
            [
                post("/plain").key("k").answers(204).with_body(""),
                post("/plain").key("k").replays().with_body(""),
            ],
        )
        .answering([made(204).line("etag", "\"2\"").whole("never sent")]),
        kept("205 is kept", "RFC 9110 section 15.3.6", made(205).whole("")),
        kept(
            "206 is kept",
            "RFC 9110 section 15.3.7",
            made(206).line("content-range", "bytes 0-3/10").whole("0123"),
        ),
        kept(
            "207 is kept",
            "RFC 4918 section 13",
            made(207).line("content-type", "application/xml").whole("<m/>"),
        ),
        kept(
            "299 is kept",
            "RFC 9110 section 15: an unknown status is its class",
            made(299),
        ),
    ]
}

fn redirections() -> Vec<Case> {
    vec![
        kept("300 is kept", "RFC 9110 section 15.4.1", made(300)),
        kept(
            "301 is kept",
            "RFC 9110 section 15.4.2",
            made(301).line("location", "/elsewhere").whole(""),
        ),
        kept(
            "303 is kept",
            "RFC 9110 section 15.4.4",
            made(303).line("location", "/orders/1"),
        ),
        case(
            "304 is kept and has no body, whatever its length says",
            "RFC 9110 section 15.4.5",
            [
                post("/plain").key("k").answers(304).with_body(""),
                post("/plain").key("k").replays(),
            ],
        )
        .answering([made(304).line("content-length", "1234").line("etag", "\"1\"").whole("")]),
        kept(
            "308 is kept",
            "RFC 9110 section 15.4.9",
            made(308).line("location", "https://example.com/"),
        ),
    ]
}

fn client_errors() -> Vec<Case> {
    vec![
        kept(
            "400 of the handler's own is kept",
            "Whop: replays 4xx; draft section 2.6: success or an error",
            made(400),
        ),
        kept(
            "401 of the handler's own is kept",
            "RFC 9110 section 15.5.2",
            made(401)
                .line("www-authenticate", "Basic")
                .line("www-authenticate", "Bearer"),
        ),
        kept("402 is kept", "RFC 9110 section 15.5.3", made(402)),
        kept("404 is kept", "RFC 9110 section 15.5.5", made(404).whole("")),
        kept(
            "409 of the handler's own is kept and has no code of ours",
            "RFC 9110 section 15.5.10",
            made(409),
        ),
        kept("410 is kept", "RFC 9110 section 15.5.11", made(410)),
        kept("412 is kept", "RFC 9110 section 15.5.13", made(412)),
        kept(
            "422 of the handler's own is kept",
            "RFC 9110 section 15.5.21; draft issue 42",
            made(422)
                .line("content-type", "application/problem+json")
                .whole("{\"type\":\"about:blank\"}"),
        ),
        kept("423 is kept", "RFC 4918 section 11.3", made(423)),
        kept("428 is kept", "RFC 6585 section 3", made(428)),
        kept(
            "451 is kept",
            "RFC 7725 section 3",
            made(451).line("link", "<https://example.com>; rel=\"blocked-by\""),
        ),
        kept(
            "499 is kept",
            "RFC 9110 section 15: an unknown status is its class",
            made(499),
        ),
        released("408 is not kept", "RFC 9110 section 15.5.9; IDEM-11", made(408)),
        released("425 is not kept", "RFC 8470 section 5.2; IDEM-11", made(425)),
        released(
            "429 is not kept",
            "RFC 6585 section 4; Fullstory: 429 excluded",
            made(429).line("retry-after", "7"),
        ),
    ]
}

fn failures() -> Vec<Case> {
    vec![
        released(
            "500 is not kept",
            "Stripe v2 and Telnyx: failed work runs again; IDEM-11",
            made(500),
        ),
        released("501 is not kept", "RFC 9110 section 15.6.2; IDEM-11", made(501)),
        released("502 is not kept", "RFC 9110 section 15.6.3; IDEM-11", made(502)),
        released(
            "503 of the handler's own is not kept",
            "RFC 9110 section 15.6.4; IDEM-11",
            made(503).line("retry-after", "120"),
        ),
        released("504 is not kept", "RFC 9110 section 15.6.5; IDEM-11", made(504)),
        released("507 is not kept", "RFC 4918 section 11.5; IDEM-11", made(507)),
        released(
            "599 is not kept",
            "RFC 9110 section 15: an unknown status is its class",
            made(599),
        ),
        released(
            "a failure that streams its body is not kept",
            "IDEM-11",
            made(500).of(Content::Pieces(&["what", " went wrong"])),
        ),
        case(
            "a retry runs until it succeeds",
            "Stripe v2: failed work runs again; IDEM-11",
            [
                post("/plain").key("k").answers(500).with_body("run 1"),
                post("/plain").key("k").answers(502).with_body("run 2"),
                post("/plain").key("k").answers(429).with_body("run 3"),
                post("/plain").key("k").runs().with_body("run 4"),
                post("/plain").key("k").is(Expect::Replays(3)),
            ],
        )
        .answering([made(500), made(502), made(429), made(201)]),
    ]
}

/// A 4xx that says when to come back is not final; what has had its effect is, whatever it says (IDEM-18).
fn not_yet() -> Vec<Case> {
    const RULE: &str = "RFC 9110 section 10.2.3; IDEM-18";
    let later = |status| made(status).line("retry-after", "7");
    vec![
        released(
            "409 of the handler's own with Retry-After is not kept",
            RULE,
            later(409),
        ),
        released("404 with Retry-After is not kept", RULE, later(404)),
        released("423 with Retry-After is not kept", RULE, later(423)),
        released(
            "a 4xx with Retry-After that streams its body is not kept",
            RULE,
            later(409).of(Content::Pieces(&["come", " back"])),
        ),
        released_at(
            "/successes",
            "of successes only, 409 with Retry-After is not kept",
            RULE,
            later(409),
        ),
        kept_at(
            "/everything",
            "of everything, 409 with Retry-After is kept",
            RULE,
            later(409),
        ),
        kept("200 with Retry-After is kept", RULE, later(200)),
        kept("202 of the handler's own with Retry-After is kept", RULE, later(202)),
        kept("303 with Retry-After is kept", RULE, later(303)),
    ]
}

/// Where nothing may run twice, an answer that leaves open whether there was an effect is an unknown outcome.
fn ambiguous() -> Vec<Case> {
    const RULE: &str = "IDEM-7: at most once; IDEM-11";
    let unknown = |name, status| {
        let script = [
            post("/refusing").key("k").answers(status),
            post("/refusing").key("k").problem(409, "outcome-unknown"),
        ];
        case(name, RULE, script).answering([made(status)])
    };
    vec![
        unknown("where a crash refuses, 500 is unknown", 500),
        unknown("where a crash refuses, 502 is unknown", 502),
        unknown("where a crash refuses, 504 is unknown", 504),
        unknown("where a crash refuses, an unheard-of 5xx is unknown", 599),
        released_at("/refusing", "where a crash refuses, 503 is not kept", RULE, made(503)),
        released_at("/refusing", "where a crash refuses, 501 is not kept", RULE, made(501)),
        released_at("/refusing", "where a crash refuses, 408 is not kept", RULE, made(408)),
        released_at("/refusing", "where a crash refuses, 425 is not kept", RULE, made(425)),
        released_at("/refusing", "where a crash refuses, 429 is not kept", RULE, made(429)),
        kept_at("/refusing", "where a crash refuses, 422 is kept", RULE, made(422)),
        kept_at(
            "/refusing/everything",
            "where everything is kept, so is 500",
            RULE,
            made(500),
        ),
        kept_at(
            "/refusing/everything",
            "where everything is kept, so is 504",
            RULE,
            made(504),
        ),
    ]
}

fn chosen() -> Vec<Case> {
    const SUCCESSES: &str = "Modern Treasury, Telnyx and Checkout.com: successes only; store = success";
    const ALL: &str = "Stripe v1: the first status, also of 500; store = all";
    vec![
        kept_at("/successes", "of successes only, 202 is kept", SUCCESSES, made(202)),
        kept_at(
            "/successes",
            "of successes only, 302 is kept",
            "IDEM-11: 2xx and 3xx",
            made(302),
        ),
        released_at("/successes", "of successes only, 404 is not kept", SUCCESSES, made(404)),
        released_at(
            "/successes",
            "of successes only, 422 is not kept",
            "PPRO: 4xx not stored",
            made(422),
        ),
        released_at("/successes", "of successes only, 500 is not kept", SUCCESSES, made(500)),
        kept_at("/everything", "of everything, 500 is kept", ALL, made(500)),
        kept_at(
            "/everything",
            "of everything, 503 is kept",
            ALL,
            made(503).line("retry-after", "120"),
        ),
        kept_at(
            "/everything",
            "of everything, 429 is kept",
            "IDEM-11: every one",
            made(429),
        ),
        kept_at(
            "/everything",
            "of everything, 408 is kept",
            "IDEM-11: every one",
            made(408),
        ),
        released_at(
            "/everything",
            "of everything, a panic is not kept",
            "IDEM-11: whatever store says",
            made(500).of(Content::Panic),
        ),
        case(
            "what an extractor refuses is not kept",
            "IDEM-10; Stripe: not a validation failure",
            [
                request("POST", "/json").key("k").body("{").refused(415),
                post("/json").key("k").json("{").refused(400),
                post("/json").key("k").json("{}").runs(),
            ],
        ),
        case(
            "a body that is no text is refused by its extractor and claims nothing",
            "IDEM-10",
            [
                post("/text").key("k").body(b"\xFF").refused(400),
                post("/text").key("k").body("a").runs(),
            ],
        ),
        case(
            "a body beyond the limit is refused and claims nothing",
            "RFC 9110 section 15.5.14; IDEM-10",
            [
                post("/limited").key("k").body(vec![b'x'; 1_001]).refused(413),
                post("/limited")
                    .key("k")
                    .body(vec![b'x'; 1_001])
                    .chunked("")
                    .refused(413),
                post("/limited").key("k").body(vec![b'x'; 1_000]).runs(),
            ],
        ),
    ]
}
