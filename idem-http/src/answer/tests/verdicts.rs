//! Every verdict at every status, under every option that a verdict beats.

use http::header::RETRY_AFTER;
use idem_core::ClaimPolicy;

use super::*;
use crate::markers::{CODE, NOT_FINAL};

const KEPT_FOR: Duration = Duration::from_secs(90);

const STATUSES: [u16; 19] = [
    200, 201, 202, 204, 299, 301, 303, 304, 400, 404, 408, 409, 422, 425, 429, 500, 501, 503, 599,
];

const STORES: [StoredAnswers; 3] = [StoredAnswers::Final, StoredAnswers::Success, StoredAnswers::All];

/// The outcome of an answer, in a word, and how long its record is kept if not for the ttl.
fn finished(response: Response<Body>, rules: &AnswerRules) -> (&'static str, Option<Duration>) {
    let HandlerResult::Whole { answer, outcome } = finish(response, rules) else {
        panic!("it is there at once");
    };
    assert!(answer.extensions().get::<Verdict>().is_none(), "it is for idem alone");
    let word = word(&outcome);
    let is_marked = answer.headers().contains_key(markers::NOT_STORED);
    assert_eq!(is_marked, word == "not stored", "{word}");
    (word, keep_for(&outcome))
}

fn word(outcome: &RecordOutcome) -> &'static str {
    match outcome {
        RecordOutcome::Release => "released",
        RecordOutcome::Complete { completion, .. } => match completion {
            Completion::Stored(_) => "stored",
            Completion::NotStored => "not stored",
            Completion::Unknown => "unknown",
        },
    }
}

fn keep_for(outcome: &RecordOutcome) -> Option<Duration> {
    match outcome {
        RecordOutcome::Complete { keep_for, .. } => *keep_for,
        RecordOutcome::Release => None,
    }
}

/// An answer with a header that says "come back" to those who look at it.
fn answer(status: u16, verdict: Option<Verdict>) -> Response<Body> {
    let mut response = Response::new(Body::from("an answer"));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("7"));
    if let Some(verdict) = verdict {
        response.extensions_mut().insert(verdict);
    }
    response
}

fn all_rules() -> impl Iterator<Item = AnswerRules> {
    STORES.into_iter().flat_map(|stored| {
        [false, true].map(|refuses_reruns| AnswerRules {
            stored,
            refuses_reruns,
            ..rules()
        })
    })
}

#[test]
fn a_verdict_beats_the_status_the_store_and_what_a_crash_does() {
    let table = [
        (Verdict::Keep, ("stored", None)),
        (Verdict::KeepFor(KEPT_FOR), ("stored", Some(KEPT_FOR))),
        (Verdict::KeepFor(Duration::ZERO), ("stored", Some(ClaimPolicy::MIN))),
        (Verdict::KeepFor(Duration::MAX), ("stored", Some(ClaimPolicy::MAX_TTL))),
        (Verdict::Release, ("released", None)),
        (Verdict::Unknown, ("unknown", None)),
    ];
    for rules in all_rules() {
        for status in STATUSES {
            for (verdict, expected) in table {
                let outcome = finished(answer(status, Some(verdict)), &rules);
                assert_eq!(outcome, expected, "{status} {verdict:?} {rules:?}");
            }
        }
    }
}

#[test]
fn without_a_verdict_the_status_decides() {
    for rules in all_rules() {
        for status in STATUSES {
            let by_status = match (rules.stored, status) {
                (StoredAnswers::All, _) | (_, 200..400) => "stored",
                (_, 500 | 599) if rules.refuses_reruns => "unknown",
                // Each has a `Retry-After`.
                _ => "released",
            };
            assert_eq!(
                finished(answer(status, None), &rules),
                (by_status, None),
                "{status} {rules:?}"
            );
        }
    }
}

#[test]
fn what_idem_made_in_a_service_behind_is_never_kept() {
    for rules in all_rules() {
        let [passing, open] = [503, 500].map(|status| {
            [None, Some(Verdict::Keep), Some(Verdict::KeepFor(KEPT_FOR))].map(|verdict| {
                let mut response = answer(status, verdict);
                response.headers_mut().insert(CODE, NOT_FINAL);
                finished(response, &rules)
            })
        });
        let unless_refused = if rules.refuses_reruns { "unknown" } else { "released" };
        assert_eq!(passing, [("released", None); 3], "{rules:?}");
        assert_eq!(open, [(unless_refused, None); 3], "{rules:?}");
    }
}

#[test]
fn a_switch_of_protocols_is_not_stored_whatever_the_verdict() {
    let verdicts = [
        Verdict::Keep,
        Verdict::KeepFor(KEPT_FOR),
        Verdict::Release,
        Verdict::Unknown,
    ];
    for verdict in verdicts {
        let outcome = finished(answer(101, Some(verdict)), &rules());
        assert_eq!(outcome, ("not stored", None), "{verdict:?}");
    }
}

#[test]
fn what_cannot_be_stored_is_not_for_as_long_as_the_verdict_says() {
    let table = [
        (Verdict::Keep, ("not stored", None)),
        (Verdict::KeepFor(KEPT_FOR), ("not stored", Some(KEPT_FOR))),
        (Verdict::Release, ("released", None)),
        (Verdict::Unknown, ("unknown", None)),
    ];
    for (verdict, expected) in table {
        let mut response = answer(500, Some(verdict));
        *response.body_mut() = vec![b'x'; MAX + 1].into();
        assert_eq!(finished(response, &rules()), expected, "{verdict:?}");
    }
}

#[tokio::test]
async fn a_streamed_answer_has_its_verdict_at_its_end() {
    let streamed = |steps: Vec<Step>, verdict| {
        let mut response = answer(502, Some(verdict));
        *response.body_mut() = Body::new(Scripted {
            steps: steps.into(),
            announced: None,
        });
        finish(response, &rules())
    };
    for (verdict, kept) in [(Verdict::Keep, None), (Verdict::KeepFor(KEPT_FOR), Some(KEPT_FOR))] {
        let (body, ending) = streaming(streamed(vec![some(1), Step::Wait, some(2)], verdict));
        let outcome = ending.await.outcome;
        assert_eq!(
            (stored_len(&outcome), keep_for(&outcome)),
            (Some(3), kept),
            "{verdict:?}"
        );
        drop(body);
        let (_body, ending) = streaming(streamed(vec![Step::Wait, some(MAX + 1)], verdict));
        let outcome = ending.await.outcome;
        assert_eq!(
            (word(&outcome), keep_for(&outcome)),
            ("not stored", kept),
            "{verdict:?}"
        );
    }
    for (verdict, expected) in [(Verdict::Release, "released"), (Verdict::Unknown, "unknown")] {
        let (body, outcome) = at_once(streamed(vec![some(1), Step::Wait, some(2)], verdict));
        assert_eq!(word(&outcome), expected);
        let whole = body.collect().await.expect("no failure");
        assert_eq!(whole.to_bytes().len(), 3, "the client gets all of it");
    }
}
