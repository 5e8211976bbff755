//! A case as data: a name, where it comes from, what the handler answers, and a short script of requests.
//!
//! Owns the words that tables are written in. Knows no socket and no service.

use super::stage::Made;

/// One row of a table.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The section, the vendor's documentation or the rule that says so.
    pub(super) source: &'static str,
    /// What the handler answers at its first run, its second, and so on; the last one for all that follow.
    pub(super) made: Vec<Made>,
    pub(super) script: Vec<Step>,
    /// Why HTTP/2 cannot carry it.
    pub(super) only_http1: Option<&'static str>,
}

/// A case whose handler answers 201 and the number of the run.
pub(super) fn case(name: &'static str, source: &'static str, script: impl IntoIterator<Item = Step>) -> Case {
    Case {
        name,
        source,
        made: vec![Made::default()],
        script: script.into_iter().collect(),
        only_http1: None,
    }
}

impl Case {
    pub(super) fn answering(mut self, made: impl IntoIterator<Item = Made>) -> Self {
        self.made = made.into_iter().collect();
        self
    }

    pub(super) fn only_http1(mut self, why: &'static str) -> Self {
        self.only_http1 = Some(why);
        self
    }

    /// Whether handlers wait for the gate.
    pub(super) fn holds(&self) -> bool {
        self.script
            .iter()
            .any(|step| matches!(step, Step::Hold(_) | Step::Leave(_) | Step::Together(..)))
    }
}

#[derive(Debug)]
pub(super) enum Step {
    Send(Request, Expect, Vec<Also>),
    /// Sent, and the handler is held until the gate opens.
    Hold(Request),
    /// The same by a client that leaves while the handler is held. One case at most, for departures are the service's.
    Leave(Request),
    /// Sent, and answered once the gate is open: by the first one's answer.
    Wait(Request),
    /// Opens the gate; those who were held run to their end.
    Open,
    /// So many at once: one runs, the others are refused as in flight.
    Together(usize, Request),
    /// Waits until nothing is recorded in the background any more.
    Drain,
    /// Sent over and over while it is answered so, until it runs.
    UntilItRuns(Request, Expect),
}

impl Step {
    /// What is sent, if anything is.
    pub(super) fn request(&self) -> Option<&Request> {
        match self {
            Self::Send(request, ..)
            | Self::Hold(request)
            | Self::Leave(request)
            | Self::Wait(request)
            | Self::Together(_, request)
            | Self::UntilItRuns(request, _) => Some(request),
            Self::Open | Self::Drain => None,
        }
    }
}

/// What comes back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// The handler ran and answered this.
    Runs(u16),
    /// What the nth request of the script got, marked.
    Replays(usize),
    /// The same, with less headers than the first answer.
    ReplaysWithout(&'static [&'static str]),
    /// A replay of what nobody has seen.
    ReplaysUnseen,
    Problem(u16, &'static str),
    /// A problem in the service's own shape.
    Shaped(u16, &'static str),
    /// An answer by somebody else, such as an extractor.
    Refused(u16),
    /// The handler ran, and the client sees that the answer is not whole.
    CutShort,
}

/// What else the answer is like.
#[derive(Debug)]
pub(super) enum Also {
    /// Exactly these lines.
    Has(&'static str, Vec<&'static str>),
    Lacks(&'static str),
    Body(Vec<u8>),
    /// A member of the JSON that is, or has in it, this text.
    Tells(&'static str, &'static str),
    /// Text that is nowhere in it.
    Hides(&'static str),
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Nobody sends no token.
    pub(super) tenant: Option<&'static str>,
    pub(super) lines: Vec<Line>,
    pub(super) body: Vec<u8>,
    /// In pieces of unknown length, and then these trailer lines.
    pub(super) chunked: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) enum Line {
    Field(&'static str, Vec<u8>),
    /// As it is written, without the line's end.
    Raw(&'static [u8]),
}

pub(super) fn post(path: &'static str) -> Request {
    request("POST", path)
}

pub(super) fn request(method: &'static str, path: &'static str) -> Request {
    Request {
        method,
        path,
        tenant: Some("acme"),
        lines: Vec::new(),
        body: Vec::new(),
        chunked: None,
    }
}

impl Request {
    pub(super) fn key(self, value: impl Into<Vec<u8>>) -> Self {
        self.line("idempotency-key", value)
    }

    pub(super) fn line(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.lines.push(Line::Field(name, value.into()));
        self
    }

    pub(super) fn raw(mut self, line: &'static [u8]) -> Self {
        self.lines.push(Line::Raw(line));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn json(self, body: &'static str) -> Self {
        self.line("content-type", "application/json").body(body)
    }

    pub(super) fn chunked(mut self, trailers: &'static str) -> Self {
        self.chunked = Some(trailers);
        self
    }

    pub(super) fn tenant(mut self, tenant: &'static str) -> Self {
        self.tenant = Some(tenant);
        self
    }

    pub(super) fn nobody(mut self) -> Self {
        self.tenant = None;
        self
    }

    pub(super) fn runs(self) -> Step {
        self.answers(201)
    }

    pub(super) fn answers(self, status: u16) -> Step {
        self.is(Expect::Runs(status))
    }

    pub(super) fn replays(self) -> Step {
        self.is(Expect::Replays(0))
    }

    pub(super) fn problem(self, status: u16, code: &'static str) -> Step {
        self.is(Expect::Problem(status, code))
    }

    pub(super) fn reused(self) -> Step {
        self.problem(422, "key-reused")
    }

    pub(super) fn refused(self, status: u16) -> Step {
        self.is(Expect::Refused(status))
    }

    pub(super) fn is(self, expect: Expect) -> Step {
        Step::Send(self, expect, Vec::new())
    }
}

impl Step {
    pub(super) fn has<const N: usize>(self, name: &'static str, lines: [&'static str; N]) -> Self {
        self.also(Also::Has(name, lines.into()))
    }

    pub(super) fn lacks(self, name: &'static str) -> Self {
        self.also(Also::Lacks(name))
    }

    pub(super) fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        self.also(Also::Body(body.into()))
    }

    pub(super) fn tells(self, member: &'static str, text: &'static str) -> Self {
        self.also(Also::Tells(member, text))
    }

    pub(super) fn hides(self, text: &'static str) -> Self {
        self.also(Also::Hides(text))
    }

    fn also(mut self, more: Also) -> Self {
        match &mut self {
            Self::Send(_, _, also) => also.push(more),
            other => panic!("{other:?} has no answer to look at"),
        }
        self
    }
}
