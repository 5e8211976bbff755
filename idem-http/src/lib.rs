//! What idempotency means in HTTP, for any framework.
//!
//! People who annotate axum handlers, or layer a tower service, want the crate `idem-axum`. This one is for authors of
//! integrations with other frameworks. It knows the crates `http` and `http-body` and no server.
//!
//! The modules follow the life of a request:
//!
//! | module | owns | does not own |
//! |---|---|---|
//! | [`policy`] | the options that an application chooses | how they are written down |
//! | [`operation`] | one operation: its time to live, its name, its options | which route leads to it |
//! | [`settings`] | what holds for all operations of an application | the engine |
//! | [`key`] | the syntax of the key header | which header it is |
//! | [`identity`] | scope and key as a record key, and the refusals on the way | where a scope comes from |
//! | [`fingerprint`] | what tells an equal request from another one under its key | who reads the body |
//! | [`guarded`] | claiming, and the answer to each of the engine's replies | time, retries, the backend |
//! | [`request_body`] | reading a body before the claim | bodies that a handler reads itself |
//! | [`answer`] | which answers are stored, and how a body becomes bytes | the handler |
//! | [`verdict`] | what a handler says about the record of its answer | what follows from it |
//! | [`stored`] | the layout of a stored response | where it is stored |
//! | [`problem`] | the answers that idem gives in place of the handler | when it gives them |
//! | [`markers`] | the headers that say what idem did | |
//! | [`why`] | what a service would do with a request now | where the record is read |
//! | [`body`] | the types of bodies | |
//! | [`observe`] | which answer belongs to which outcome | the outcomes |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod answer;
pub mod body;
pub mod fingerprint;
#[cfg(fuzzing)]
mod fuzz;
pub mod guarded;
pub mod identity;
pub mod interned;
pub mod key;
pub mod markers;
pub mod observe;
pub mod operation;
mod pieces;
pub mod policy;
pub mod problem;
pub mod request_body;
pub mod settings;
pub mod stored;
pub mod verdict;
pub mod why;

pub use self::body::{Body, BoxError, HandlerBody, ResponseBody};
pub use self::guarded::{GuardedRequest, Handler, RequestIdentity, Setup};
pub use self::observe::{Observation, RequestOutcome};
pub use self::operation::{Operation, OperationName};
pub use self::policy::{Compared, InFlight, OnOutage, Policy, StoredAnswers};
pub use self::problem::{IdempotencyProblem, ProblemDetails};
pub use self::settings::Settings;
pub use self::verdict::Verdict;

/// The door for the targets in `fuzz`, and for `bench/benches`. Not part of the public interface.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::fuzz::{fingerprint, key, read_and_write};
}
