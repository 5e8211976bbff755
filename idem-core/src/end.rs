//! How a handler's transaction ended that was to be committed together with its record.
//!
//! Owns the kinds of an end that is not a commit. Does not own which answer of a database is of which kind: backends do.

use std::error::Error;
use std::fmt;

/// Why a transaction did not end as its handler wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndKind {
    /// The transaction was rolled back, because an earlier statement had failed and the handler did not act on its error.
    FailedBefore,
    /// The transaction was rolled back, and may succeed the next time. It collided with another transaction, the database was
    /// short of a resource, or the connection was lost before the commit.
    MayPass,
    /// The transaction was rolled back and will be refused again, for example by a constraint that is checked at the commit.
    Refused,
    /// It is unknown whether the transaction was committed, because the connection was lost or failed during the commit.
    Unknown,
    /// The handler ended its transaction itself, by SQL text. Its statements until then may be committed.
    EndedByHandler,
}

/// The error of a transaction that was not committed, or whose end is unknown. The database's error is its
/// [`source`](Error::source).
#[derive(Debug)]
pub struct EndError {
    kind: EndKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl EndError {
    /// An end of this kind.
    #[must_use]
    pub fn new(kind: EndKind) -> Self {
        Self { kind, source: None }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What is known of the transaction.
    #[must_use]
    pub fn kind(&self) -> EndKind {
        self.kind
    }
}

impl fmt::Display for EndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            EndKind::FailedBefore => "the transaction was rolled back: one of its statements had failed before",
            EndKind::MayPass => "the transaction was rolled back, and may succeed the next time",
            EndKind::Refused => "the transaction was rolled back, and will be refused again",
            EndKind::Unknown => "whether the transaction was committed is not known",
            EndKind::EndedByHandler => "the transaction was ended by a statement of the handler",
        })
    }
}

impl Error for EndError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
