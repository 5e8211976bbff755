//! The part of idem that knows nothing of HTTP: records, claims, the engine and the backend trait.
//!
//! A pure decision ([`decide`]) inside a thin [`Engine`], behind a small [`Backend`] trait. To annotate axum handlers, use
//! the `idem-axum` crate. This crate is for authors of backends, and of integrations with other frameworks.
//!
//! The modules follow the life of a request:
//!
//! | module | owns | does not own |
//! |---|---|---|
//! | [`key`] | the record key: operation, scope and key, encoded injectively | where the parts come from |
//! | [`fingerprint`] | the digest by which two requests are compared | how a request is hashed |
//! | [`claim`] | tokens, claims, records and the decision over them | time, I/O |
//! | [`policy`] | time to live, lease, waiting, the reaction to a crash | HTTP |
//! | [`backend`] | the contract of every store, and its errors | any store |
//! | [`engine`] | claim, run detached, renew, complete, release | the content of an answer |
//! | [`end`] | what is known of a handler's transaction that was to be committed with its record | any database |
//! | [`steps`] | what an attempt has finished, so that its successor does not do it again | where steps are stored |
//! | [`columns`] | a record as columns of a table, for backends in SQL | tables, statements, clocks |
//! | [`inspect`] | what an operator may see and settle | how it is shown, and who may |
//! | [`memory`] | the backend for tests, in the memory of one process | other processes |
//! | `spec` | the contract of [`backend`] as one pure function, with the feature `conformance` | time, any store |
//! | [`observation`] | the outcome of each request or task: its span, its line in the log, its count | answers |
//! | `observe` | the engine's metrics, with the feature `metrics` | the exporter |
//!
//! The rules named `IDEM-n` are the numbered guarantees in `docs/semantics.md`.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
pub mod claim;
pub mod columns;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod end;
pub mod engine;
pub mod fingerprint;
pub mod inspect;
pub mod key;
pub mod memory;
pub mod observation;
mod observe;
pub mod policy;
#[cfg(any(test, feature = "conformance"))]
pub mod spec;
pub mod steps;

pub use backend::{Backend, BackendError, BackendErrorKind, Changed};
pub use claim::{Acquisition, Claim, Completion, Decision, Fenced, Owner, Record, Token, decide};
pub use end::{EndError, EndKind};
pub use engine::{
    ClaimResult, Commit, CommitOutcome, CommitSent, Duplicate, Engine, HandlerResult, LARGE_PAYLOAD, RecordOutcome,
    Run, RunAnswer, RunOutcome, StreamedOutcome, allow_time_for, untimed,
};
pub use fingerprint::Fingerprint;
pub use key::{IdempotencyKey, KeyError, RecordKey, Scope};
pub use memory::MemoryBackend;
pub use observation::{Observation, RequestOutcome};
pub use policy::{AfterCrash, ClaimPolicy};
pub use steps::{StepError, StepErrorKind, StepLimits, Steps};
