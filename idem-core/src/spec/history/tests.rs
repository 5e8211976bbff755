mod broken;
mod explained;
mod operators;
mod random;
mod steps;
mod unexplained;

use std::time::{Duration, SystemTime};

use super::*;
use crate::{Claim, ClaimPolicy, Completion, Fenced, Fingerprint, Record, Token};

const LEASE: Duration = Duration::from_millis(100);
const TTL: Duration = Duration::from_millis(300);

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The claim with this name.
fn claim(name: u8) -> Claim {
    Claim {
        token: Token::from_bytes([name; Token::LEN]),
        began_at: SystemTime::UNIX_EPOCH,
        ..Claim::first(Fingerprint::NONE, &ClaimPolicy::new(TTL).with_lease(LEASE))
    }
}

fn claiming(name: u8) -> Call {
    Call::Claim(claim(name))
}

fn taking_over(lapsed: u8, name: u8) -> Call {
    Call::TakeOver {
        lapsed: claim(lapsed),
        claim: claim(name),
    }
}

fn renewing(name: u8) -> Call {
    Call::Renew(claim(name))
}

fn releasing(name: u8) -> Call {
    Call::Release(claim(name))
}

/// The completion of a claim with the answer of that name.
fn completing(name: u8) -> Call {
    Call::Complete {
        claim: claim(name),
        completion: answer(name),
        ttl: TTL,
    }
}

fn answer(name: u8) -> Completion {
    Completion::Stored(vec![name].into())
}

fn held(name: u8, remaining: u64) -> Reply {
    Reply::Existing(Record::Claimed {
        claim: claim(name),
        remaining: millis(remaining),
    })
}

fn lapsed(name: u8) -> Reply {
    held(name, 0)
}

fn completed(name: u8) -> Reply {
    Reply::Existing(Record::Completed {
        fingerprint: Fingerprint::NONE,
        completion: answer(name),
    })
}

const APPLIED: Reply = Reply::Fenced(Fenced::Applied);
const SUPERSEDED: Reply = Reply::Fenced(Fenced::Superseded);

/// When a call began and returned, in milliseconds, the call and its reply.
type Line = (u64, u64, Call, Option<Reply>);

fn answered(from: u64, until: u64, call: Call, reply: Reply) -> Line {
    (from, until, call, Some(reply))
}

fn open(from: u64, call: Call) -> Line {
    (from, u64::MAX, call, None)
}

/// Each line becomes a call of a process of its own, so that calls may overlap.
fn events(lines: &[Line]) -> Vec<Event> {
    let mut events = Vec::new();
    for (process, (from, until, call, reply)) in (1..).zip(lines) {
        let id = CallId { process, number: 0 };
        events.push(Event::Began {
            id,
            at: millis(*from),
            key: "key".to_owned(),
            call: call.clone(),
        });
        if let Some(reply) = reply.clone() {
            events.push(Event::Returned {
                id,
                at: millis(*until),
                reply: Some(reply),
            });
        }
    }
    events
}

fn assert_explained(what: &str, lines: &[Line]) {
    let report = check(events(lines));
    assert!(
        report.unexplained.is_empty() && report.unchecked == 0,
        "{what}: {report}"
    );
}

/// The history is not explained, and so many calls show it.
fn assert_unexplained(what: &str, shown: usize, lines: &[Line]) {
    let report = check(events(lines));
    let [unexplained] = &report.unexplained[..] else {
        panic!("{what}: {report}");
    };
    assert_eq!(unexplained.calls(), shown, "{what}: {unexplained}");
}
