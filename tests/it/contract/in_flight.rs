//! What becomes of requests that come while the first one runs, or that end without an answer.

use super::case::{Case, Expect, Step, case, post};
use super::stage::{Content, made};

pub(super) fn cases() -> Vec<Case> {
    [in_flight(), outcomes()].into_iter().flatten().collect()
}

fn in_flight() -> Vec<Case> {
    vec![
        case(
            "of eight at once one runs and the others are told so",
            "draft section 2.6: 409 while the first runs; IDEM-1",
            [
                Step::Together(8, post("/plain").key("k")),
                post("/plain").key("k").replays(),
            ],
        ),
        case(
            "who comes while the first one runs is told to come again",
            "draft section 2.7; RFC 9110 section 10.2.3",
            [
                Step::Hold(post("/plain").key("k")),
                post("/plain")
                    .key("k")
                    .problem(409, "in-flight")
                    .has("retry-after", ["1"]),
                Step::Open,
                post("/plain").key("k").is(Expect::Replays(1)),
            ],
        ),
        case(
            "another key is not held up",
            "IDEM-1",
            [
                Step::Hold(post("/plain").key("a")),
                Step::Hold(post("/plain").key("b")),
                Step::Open,
                post("/plain").key("a").is(Expect::Replays(0)),
                post("/plain").key("b").is(Expect::Replays(1)),
            ],
        ),
        case(
            "who waits gets the first one's answer",
            "IDEM-4: in_flight = wait",
            [
                Step::Hold(post("/waiting").key("k")),
                Step::Wait(post("/waiting").key("k")),
                Step::Wait(post("/waiting").key("k")),
                Step::Open,
                post("/waiting").key("k").replays(),
            ],
        ),
        case(
            "who has waited long enough is told to come again",
            "IDEM-4: wait",
            [
                Step::Hold(post("/impatient").key("k")),
                post("/impatient")
                    .key("k")
                    .problem(409, "in-flight")
                    .has("retry-after", ["1"]),
                Step::Open,
            ],
        ),
        case(
            "who is accepted is told so without a body",
            "IDEM-4: in_flight = accept; RFC 9110 section 15.3.3",
            [
                Step::Hold(post("/accepting").key("k")),
                post("/accepting")
                    .key("k")
                    .refused(202)
                    .has("retry-after", ["1"])
                    .with_body("")
                    .lacks("content-type"),
                Step::Open,
                post("/accepting").key("k").is(Expect::Replays(1)).lacks("retry-after"),
            ],
        ),
        case(
            "a client that leaves does not stop its handler",
            "IDEM-5",
            [
                Step::Leave(post("/waiting").key("k")),
                Step::Open,
                Step::Drain,
                post("/waiting").key("k").is(Expect::ReplaysUnseen).with_body("run 1"),
            ],
        ),
    ]
}

fn outcomes() -> Vec<Case> {
    let panics = || made(500).of(Content::Panic);
    vec![
        case(
            "a panic is a 500 that says nothing and can be retried",
            "IDEM-11",
            [
                post("/plain")
                    .key("k")
                    .answers(500)
                    .has("content-type", ["application/problem+json"])
                    .hides("on purpose"),
                post("/plain").key("k").runs(),
                post("/plain").key("k").is(Expect::Replays(1)),
            ],
        )
        .answering([panics(), made(201)]),
        case(
            "where a request is run once at most a panic leaves its outcome unknown",
            "IDEM-7, IDEM-11: after_crash = refuse",
            [
                post("/refusing").key("k").answers(500),
                post("/refusing")
                    .key("k")
                    .problem(409, "outcome-unknown")
                    .lacks("retry-after"),
            ],
        )
        .answering([panics()]),
        case(
            "where a request is run once at most its answer is replayed as ever",
            "IDEM-7: after_crash = refuse",
            [post("/refusing").key("k").runs(), post("/refusing").key("k").replays()],
        ),
    ]
}
