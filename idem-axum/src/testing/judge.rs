//! From the answers to what is wrong with them.
//!
//! Owns what a replay may differ in from its first answer, and what the answers say of how often the handler ran. Pure:
//! sends nothing.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::answer::{Answer, Kind};
use super::report::Finding;
use idem_http::markers::REPLAYED;
use idem_http::{IdempotencyProblem, StoredAnswers, stored};

/// The answers to one request.
#[derive(Debug)]
pub(super) struct Answers {
    /// To those that were sent at once.
    pub(super) at_once: Vec<Answer>,
    /// To the one that was sent when these had their answers.
    pub(super) after: Answer,
    /// Headers that each answer has its own of.
    pub(super) varying: Vec<HeaderName>,
}

impl Answers {
    /// What is wrong, and the handler's own answer where it ran.
    pub(super) fn judge(self) -> (Vec<Finding>, Option<Answer>) {
        let kinds = self.kinds();
        let all: Vec<_> = self.at_once.iter().chain([&self.after]).zip(kinds).collect();
        let of = |kind| {
            all.iter()
                .filter(move |(_, other)| *other == kind)
                .map(|(answer, _)| *answer)
        };
        let (own, replays) = (|| of(Kind::Handlers), of(Kind::Replay).count());
        let mut findings = refusals(&all);
        let first = own().next();
        findings.extend(match own().count() {
            1 => None,
            0 if !findings.is_empty() => None,
            times => Some(not_kept(first).unwrap_or(Finding::Runs {
                times,
                status: first.map(|first| first.head.status),
                replays,
            })),
        });
        // Where duplicates are refused for that, it is said already.
        let is_refused = |finding: &Finding| {
            let problem = IdempotencyProblem::ResponseNotStored;
            matches!(finding, Finding::Refused { problem: refused, .. } if *refused == problem)
        };
        if own().any(Answer::says_not_stored) && !findings.iter().any(is_refused) {
            findings.push(Finding::NotRecorded);
        }
        if let Some(first) = first {
            let differences = of(Kind::Replay).map(|replay| self.differences(first, replay));
            findings.extend(
                differences
                    .into_iter()
                    .find(|found| !found.is_empty())
                    .unwrap_or_default(),
            );
        }
        (findings, first.cloned())
    }

    /// What each answer is; the last is that of the request sent after the others.
    fn kinds(&self) -> Vec<Kind> {
        self.at_once.iter().chain([&self.after]).map(Answer::kind).collect()
    }

    fn differences(&self, first: &Answer, replay: &Answer) -> Vec<Finding> {
        let mut findings = Vec::new();
        if first.head.status != replay.head.status {
            findings.push(Finding::StatusDiffers {
                first: first.head.status,
                replay: replay.head.status,
            });
        }
        let (sent, replayed) = (&first.head.headers, &replay.head.headers);
        let mut names: Vec<_> = sent.keys().chain(replayed.keys()).collect();
        names.sort_unstable_by_key(|name| name.as_str());
        names.dedup();
        let may_differ =
            |name: &HeaderName| *name == REPLAYED || self.varying.contains(name) || !stored::is_kept(name, sent);
        for name in names.into_iter().filter(|name| !may_differ(name)) {
            let (first, replay) = (lines(sent, name), lines(replayed, name));
            if first != replay {
                let name = name.clone();
                findings.push(Finding::HeaderDiffers { name, first, replay });
            }
        }
        if first.body != replay.body {
            let same = first.body.iter().zip(&replay.body).take_while(|(a, b)| a == b);
            findings.push(Finding::BodyDiffers {
                offset: same.count(),
                first: first.body.clone(),
                replay: replay.body.clone(),
            });
        }
        findings
    }
}

fn lines(headers: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}

/// Refusals, each once. While the first one runs, a duplicate may be told that it is in flight.
fn refusals(all: &[(&Answer, Kind)]) -> Vec<Finding> {
    let last = all.len().saturating_sub(1);
    let mut findings = Vec::new();
    for (index, (answer, kind)) in all.iter().enumerate() {
        let finding = match kind {
            Kind::Handlers | Kind::Replay => continue,
            Kind::Refusal(IdempotencyProblem::InFlight) | Kind::Accepted if index < last => continue,
            Kind::Refusal(IdempotencyProblem::InFlight) | Kind::Accepted => Finding::InFlight,
            Kind::Refusal(problem) => Finding::Refused {
                problem: *problem,
                detail: answer.detail(),
            },
        };
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// Where the handler's answer is one that is not kept: that this is why it ran again.
fn not_kept(first: Option<&Answer>) -> Option<Finding> {
    let first = first?;
    let status: StatusCode = first.head.status;
    (first.says_not_yet() || !StoredAnswers::Final.include(status)).then_some(Finding::NotKept { status })
}
