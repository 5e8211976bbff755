//! What a replay test found.
//!
//! Owns the findings and their words. Each word is for the person who reads a failed test, so it says what differs and
//! where to look.

use std::error::Error;
use std::fmt::{self, Display};

use axum::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;

use crate::IdempotencyProblem;

/// How many bytes of a body are shown before the first one that differs, and from there on.
const SHOWN: (usize, usize) = (16, 32);

/// Why a request counts as not replayed. Its text lists the [`findings`](ReplayReport::findings), one a line.
#[derive(Clone, Debug)]
pub struct ReplayReport {
    findings: Vec<Finding>,
}

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A request got no whole answer: its own body, the service or the answer's body failed.
    NoAnswer {
        /// What failed, in its own words.
        cause: String,
    },
    /// A request was refused, and not because another one was in flight.
    Refused {
        /// Why.
        problem: IdempotencyProblem,
        /// What the answer says of it.
        detail: Option<String>,
    },
    /// The request that was sent last was told that another one is in flight, though all others have their answers.
    InFlight,
    /// The handler did not run once: of the answers, so many were its own, or of what stands before it.
    Runs {
        /// How often it ran.
        times: usize,
        /// The status it answered with, where it ran.
        status: Option<StatusCode>,
        /// How many answers were replays.
        replays: usize,
    },
    /// The handler's answer is not kept, so each retry runs again.
    NotKept {
        /// Its status.
        status: StatusCode,
    },
    /// The handler's answer is marked `Idempotency-Stored: false`: the backend did not take it.
    NotRecorded,
    /// The statuses differ.
    StatusDiffers {
        /// That of the first answer.
        first: StatusCode,
        /// That of the replay.
        replay: StatusCode,
    },
    /// The lines of a header differ.
    HeaderDiffers {
        /// Its name.
        name: HeaderName,
        /// Its lines in the first answer.
        first: Vec<HeaderValue>,
        /// Its lines in the replay.
        replay: Vec<HeaderValue>,
    },
    /// The bytes of the bodies differ.
    BodyDiffers {
        /// The first byte that does; the length of the shorter one where the longer one begins with it.
        offset: usize,
        /// The first answer's.
        first: Bytes,
        /// The replay's.
        replay: Bytes,
    },
}

impl ReplayReport {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        Self { findings }
    }

    /// What was found, at least one thing.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request is not replayed as it has to be:")?;
        for finding in &self.findings {
            write!(f, "\n  - {finding}")?;
        }
        Ok(())
    }
}

impl Error for ReplayReport {}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { cause } => write!(f, "a request got no whole answer: {cause}"),
            Self::Refused { problem, detail } => {
                let (status, code) = (problem.status().as_u16(), problem.code());
                write!(f, "a request was refused with {status} `{code}`")?;
                detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
            }
            Self::InFlight => f.write_str(
                "the last request was told that another one is in flight, when all had their answers; is its key used \
                 elsewhere?",
            ),
            Self::Runs { times, status, replays } => write_runs(f, *times, *status, *replays),
            Self::NotKept { status } => {
                write!(
                    f,
                    "the handler answered {status}, which is not kept: each retry runs again"
                )?;
                f.write_str(
                    "; 5xx, 408, 425, 429 and a 4xx with `Retry-After` are kept with `store = \"all\"` or \
                     `Verdict::Keep` only, and what an idem service behind the handler answered in its own name never",
                )
            }
            Self::NotRecorded => f.write_str(
                "the handler's answer is marked `Idempotency-Stored: false`: the backend did not take it, and a retry \
                 may run again",
            ),
            Self::StatusDiffers { first, replay } => {
                write!(f, "status: {first} in the first answer, {replay} in the replay")
            }
            Self::HeaderDiffers { name, first, replay } => {
                let (first, replay) = (Lines(first), Lines(replay));
                write!(
                    f,
                    "header `{name}`: {first} in the first answer, {replay} in the replay"
                )
            }
            Self::BodyDiffers { offset, first, replay } => {
                let (before, behind) = (Excerpt(first, *offset), Excerpt(replay, *offset));
                write!(
                    f,
                    "body, from byte {offset} on: {before} in the first answer, {behind} in the replay"
                )
            }
        }
    }
}

fn write_runs(f: &mut fmt::Formatter<'_>, times: usize, status: Option<StatusCode>, replays: usize) -> fmt::Result {
    let Some(status) = status else {
        return f.write_str("the handler did not run; was its key used before? Each test takes a new one");
    };
    write!(f, "the handler ran {times} times, answering {status}; ")?;
    f.write_str(if replays == 0 {
        "is it annotated with `#[idempotent]`, has the request a key, do its extractors take it, and does its answer not have \
         `Verdict::Release`?"
    } else {
        "have all of its processes one backend?"
    })
}

/// The lines of one header.
struct Lines<'a>(&'a [HeaderValue]);

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.iter().map(|line| line.as_bytes().escape_ascii());
        match lines.next() {
            None => f.write_str("no line")?,
            Some(line) => write!(f, "`{line}`")?,
        }
        lines.try_for_each(|line| write!(f, ", `{line}`"))
    }
}

/// A body round a byte of it.
struct Excerpt<'a>(&'a [u8], usize);

impl Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(body, offset) = *self;
        let start = offset.saturating_sub(SHOWN.0);
        let end = body.len().min(offset.saturating_add(SHOWN.1));
        let before = if start > 0 { "…" } else { "" };
        let behind = if end < body.len() { "…" } else { "" };
        let shown = body.get(start..end).unwrap_or_default().escape_ascii();
        write!(f, "`{before}{shown}{behind}`")
    }
}
