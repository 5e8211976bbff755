//! The HTTP-free half of idem: what a record is, who may run, what a duplicate gets.
//!
//! A pure decision ([`decide`]) inside a thin [`Engine`], behind a small [`Backend`] trait. People who annotate
//! axum handlers want the `idem-axum` crate; this one is for authors of backends and of integrations with
//! something other than axum.
//!
//! The modules follow the life of a request:
//!
//! | module | owns | does not own |
//! |---|---|---|
//! | [`key`] | the record key: operation, scope and key, encoded injectively | where the parts come from |
//! | [`fingerprint`] | what tells an equal request from another one | how a request is hashed |
//! | [`claim`] | tokens, claims, records and the decision over them | time, I/O |
//! | [`policy`] | how long things live, what waits, what a crash means | HTTP |
//! | [`backend`] | the contract every store keeps, and its errors | any store |
//! | [`engine`] | claim, run detached, renew, complete, release | what the answer is made of |
//! | [`memory`] | the backend of one process | other processes |
//! | `observe` | what is counted and timed, with the feature `metrics` | where it is shown |
//!
//! The rules named `IDEM-n` throughout are the numbered promise in `docs/semantics.md`.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
pub mod claim;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod fingerprint;
pub mod key;
pub mod memory;
mod observe;
pub mod policy;

pub use backend::{Backend, BackendError, BackendErrorKind, Changed};
pub use claim::{Acquisition, Claim, Completion, Decision, Fenced, Record, Token, decide};
pub use engine::{
    ClaimResult, Commit, CommitOutcome, CommitSent, Duplicate, Engine, HandlerResult, LARGE_PAYLOAD, RecordOutcome,
    Run, RunAnswer, RunOutcome, StreamedOutcome, allow_time_for, untimed,
};
pub use fingerprint::Fingerprint;
pub use key::{IdempotencyKey, KeyError, RecordKey, Scope};
pub use memory::MemoryBackend;
pub use policy::{AfterCrash, ClaimPolicy};
