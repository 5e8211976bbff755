//! A key is free again once its time has passed, and not before: what comes meanwhile is answered as ever.
//!
//! No clock decides here. A request is sent over and over until its handler runs again; were a replay to put the end off,
//! it never would.

use super::case::{Case, Expect, Request, Step, case, post};
use super::stage::{Content, made};

fn brief() -> Request {
    post("/brief").key("k")
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "a key runs anew after its time, and replays do not put that off",
            "draft section 2.3; IDEM-14",
            [brief().runs(), Step::UntilItRuns(brief(), Expect::Replays(0))],
        ),
        case(
            "a key that ran anew is replayed anew",
            "IDEM-14",
            [
                brief().runs(),
                Step::UntilItRuns(brief(), Expect::Replays(0)),
                Step::UntilItRuns(brief(), Expect::Replays(1)),
            ],
        ),
        case(
            "another request under a key is refused until its time has passed, and does not put that off",
            "draft section 2.3; IDEM-3, IDEM-14",
            [
                brief().runs(),
                Step::UntilItRuns(brief().body("other"), Expect::Problem(422, "key-reused")),
            ],
        ),
        case(
            "a failure that is kept is kept no longer than a success",
            "Stripe v1: success or failure alike; IDEM-14",
            [brief().answers(404), Step::UntilItRuns(brief(), Expect::Replays(0))],
        )
        .answering([made(404)]),
        case(
            "a streamed answer expires like any other",
            "IDEM-12, IDEM-14",
            [brief().answers(200), Step::UntilItRuns(brief(), Expect::Replays(0))],
        )
        .answering([made(200).of(Content::Pieces(&["one", "two"]))]),
        case(
            "that an answer was not stored is forgotten after its time",
            "IDEM-12, IDEM-14",
            [
                brief().answers(200),
                Step::Drain,
                Step::UntilItRuns(brief(), Expect::Problem(409, "response-not-stored")),
            ],
        )
        .answering([made(200).of(Content::WithTrailers)]),
        case(
            "an unknown outcome is forgotten after its time",
            "IDEM-7, IDEM-14",
            [
                post("/brief-unknown").key("k").answers(500),
                Step::UntilItRuns(post("/brief-unknown").key("k"), Expect::Problem(409, "outcome-unknown")),
            ],
        )
        .answering([made(500).of(Content::Panic)]),
        case(
            "the time of one key is not another one's",
            "IDEM-14",
            [
                brief().runs(),
                post("/plain").key("k").runs(),
                Step::UntilItRuns(brief(), Expect::Replays(0)),
                post("/plain").key("k").is(Expect::Replays(1)),
            ],
        ),
    ]
}
