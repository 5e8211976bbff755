//! What an answer says of its own record, which beats its status and the options.

use std::time::Duration;

use idem_axum::Verdict;

use super::case::{Case, Expect, Step, case, post};
use super::stage::{Content, Made, made};
use super::statuses::{kept_at, released_at};

const RULE: &str = "IDEM-11: a verdict beats `store`";

/// Longer than any case takes, and not the time to live of the stage's handlers.
const LONG: Duration = Duration::from_secs(90);
const BRIEF: Duration = Duration::from_millis(500);

fn kept(name: &'static str, made: Made) -> Case {
    kept_at("/plain", name, RULE, made)
}

fn released(name: &'static str, first: Made) -> Case {
    released_at("/plain", name, RULE, first)
}

fn unknown_at(path: &'static str, name: &'static str, first: Made) -> Case {
    let script = [
        post(path).key("k").answers(first.status()),
        post(path).key("k").problem(409, "outcome-unknown"),
        post(path).key("k").body("another").reused(),
    ];
    case(name, RULE, script).answering([first.verdict(Verdict::Unknown)])
}

pub(super) fn cases() -> Vec<Case> {
    [keep(), release(), unknown(), keep_for(), unprotected()]
        .into_iter()
        .flatten()
        .collect()
}

fn keep() -> Vec<Case> {
    let later = |status| made(status).line("retry-after", "7").verdict(Verdict::Keep);
    vec![
        kept("500 with Keep is kept", made(500).verdict(Verdict::Keep)),
        kept("503 with Keep and Retry-After is kept", later(503)),
        kept("408 with Keep is kept", made(408).verdict(Verdict::Keep)),
        kept("425 with Keep is kept", made(425).verdict(Verdict::Keep)),
        kept("429 with Keep and Retry-After is kept", later(429)),
        kept("409 with Keep and Retry-After is kept", later(409)),
        kept("200 with Keep is kept", made(200).verdict(Verdict::Keep)),
        kept(
            "502 with Keep that streams its body is kept",
            made(502)
                .of(Content::Pieces(&["bad", " gateway"]))
                .verdict(Verdict::Keep),
        ),
        kept_at(
            "/successes",
            "of successes only, 404 with Keep is kept",
            RULE,
            made(404).verdict(Verdict::Keep),
        ),
        kept_at(
            "/refusing",
            "where a crash refuses, 500 with Keep is kept",
            RULE,
            made(500).verdict(Verdict::Keep),
        ),
        case(
            "what is too large is not stored, Keep or not",
            "IDEM-12",
            [
                post("/sixteen")
                    .key("k")
                    .answers(500)
                    .has("idempotency-stored", ["false"]),
                post("/sixteen").key("k").problem(409, "response-not-stored"),
            ],
        )
        .answering([made(500).whole("seventeen bytes...").verdict(Verdict::Keep)]),
    ]
}

fn release() -> Vec<Case> {
    let release = |status| made(status).verdict(Verdict::Release);
    vec![
        released("200 with Release is not kept", release(200)),
        released("201 with Release is not kept", release(201)),
        released("204 with Release is not kept", release(204).whole("")),
        released("303 with Release is not kept", release(303)),
        released("422 with Release is not kept", release(422)),
        released("500 with Release is not kept", release(500)),
        released(
            "200 with Release that streams its body is not kept",
            release(200).of(Content::Pieces(&["done", " in part"])),
        ),
        released_at(
            "/everything",
            "of everything, 200 with Release is not kept",
            RULE,
            release(200),
        ),
        released_at(
            "/refusing",
            "where a crash refuses, 500 with Release is not kept",
            RULE,
            release(500),
        ),
        case(
            "another request may have the key of an answer with Release",
            RULE,
            [
                post("/plain").key("k").body("one").answers(200),
                post("/plain").key("k").body("two").runs(),
            ],
        )
        .answering([release(200), made(201)]),
    ]
}

fn unknown() -> Vec<Case> {
    vec![
        unknown_at("/plain", "200 with Unknown is unknown", made(200)),
        unknown_at("/plain", "404 with Unknown is unknown", made(404)),
        unknown_at("/plain", "500 with Unknown is unknown", made(500)),
        unknown_at("/plain", "503 with Unknown is unknown", made(503)),
        unknown_at(
            "/plain",
            "200 with Unknown that streams its body is unknown",
            made(200).of(Content::Pieces(&["per", "haps"])),
        ),
        unknown_at("/everything", "of everything, 200 with Unknown is unknown", made(200)),
        case(
            "an outcome that an answer calls unknown is forgotten after its time",
            "IDEM-14",
            [
                post("/brief").key("k").answers(200),
                Step::UntilItRuns(post("/brief").key("k"), Expect::Problem(409, "outcome-unknown")),
            ],
        )
        .answering([made(200).verdict(Verdict::Unknown), made(201)]),
    ]
}

/// No clock decides, as in `expiry`.
fn keep_for() -> Vec<Case> {
    const RULE: &str = "IDEM-14: for `KeepFor` in place of `ttl`";
    let briefly = Verdict::KeepFor(BRIEF);
    let until_it_runs = |path, meanwhile| Step::UntilItRuns(post(path).key("k"), meanwhile);
    vec![
        kept("500 with KeepFor is kept", made(500).verdict(Verdict::KeepFor(LONG))),
        case(
            "an answer with KeepFor is kept for less than its ttl",
            RULE,
            [
                post("/plain").key("k").answers(502),
                until_it_runs("/plain", Expect::Replays(0)),
                post("/plain").key("k").is(Expect::Replays(1)),
            ],
        )
        .answering([made(502).verdict(briefly), made(201)]),
        case(
            "a streamed answer with KeepFor is kept for less than its ttl",
            RULE,
            [
                post("/plain").key("k").answers(200),
                until_it_runs("/plain", Expect::Replays(0)),
            ],
        )
        .answering([
            made(200).of(Content::Pieces(&["one", "two"])).verdict(briefly),
            made(201),
        ]),
        case(
            "that an answer with KeepFor was not stored is forgotten after its time",
            RULE,
            [
                post("/sixteen").key("k").answers(200),
                until_it_runs("/sixteen", Expect::Problem(409, "response-not-stored")),
            ],
        )
        .answering([made(200).whole("seventeen bytes...").verdict(briefly), made(201)]),
        case(
            "an answer with KeepFor is kept for longer than its ttl",
            RULE,
            [
                post("/brief").key("long").answers(201),
                post("/brief").key("k").runs(),
                until_it_runs("/brief", Expect::Replays(1)),
                post("/brief").key("long").replays(),
            ],
        )
        .answering([made(201).verdict(Verdict::KeepFor(LONG)), made(201)]),
    ]
}

/// Without a record, a verdict is taken off and changes nothing.
fn unprotected() -> Vec<Case> {
    [
        Verdict::Keep,
        Verdict::KeepFor(LONG),
        Verdict::Release,
        Verdict::Unknown,
    ]
    .into_iter()
    .zip([
        "without a key, Keep keeps nothing",
        "without a key, KeepFor keeps nothing",
        "without a key, Release releases nothing",
        "without a key, nothing is unknown",
    ])
    .map(|(verdict, name)| {
        case(
            name,
            "IDEM-11",
            [
                post("/optional").answers(200),
                post("/optional").answers(200),
                post("/down/unprotected")
                    .key("k")
                    .answers(200)
                    .has("idempotency-stored", ["false"]),
            ],
        )
        .answering([made(200).verdict(verdict)])
    })
    .collect()
}
