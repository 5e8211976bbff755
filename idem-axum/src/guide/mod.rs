//! Guides, one page each: how to make a kind of service safe to retry, and how its clients call again.
//!
//! | guide | shows |
//! |---|---|
//! | [`payments`] | a charge at a provider, and rows of your own database beside it |
//! | [`steps`] | several effects in one request: a retry goes on where the attempt before it stopped |
//! | [`orders`] | many tenants, refused orders, clients that write their JSON anew |
//! | [`signup`] | forms where nobody is logged in: the scope, secrets in bodies and answers, validation |
//! | [`tickets`] | seats that are sold once, and a buyer whose retry is not told that the seat is taken |
//! | [`emails`] | an effect that cannot be taken back or looked up |
//! | [`webhooks`] | senders that deliver an event again, under a natural key |
//! | [`consumers`] | messages of a broker: `idem-task`, or a router in the consumer's process |
//! | [`graphql`] | answers that are always 200, partial errors, a key in the variables |
//! | [`clients`] | keys and retries from the client's side, in curl, reqwest and JavaScript |
//! | [`routers`] | routers that read a handler's signature: typed routes of `axum-extra`, and `aide` |
//! | [`repositories`] | SQL behind repositories, on any client of the database |
//! | [`observing`] | a service with traffic: what idem would do, before it does it |
//! | [`migration`] | from Redis code written by hand, and from `axum-idempotent` |
//!
//! Most programs keep their records in a `MemoryBackend`, so that they run anywhere. A service keeps them where they outlive its
//! process: on one machine in a file, by `SqliteBackend`; on many machines in Redis or Postgres.
//!
//! The tests of this crate run every Rust program on these pages, and each program asserts what the text beside it says. The
//! program on Postgres is compiled only; `examples/payments` is a service of that kind. The integration tests run the programs for
//! the shell and for JavaScript. The numbered rules, such as IDEM-7, are in `docs/semantics.md`.

// What the pages name. Links in them are followed in rustdoc, and read as plain names everywhere else.
#[allow(unused_imports, reason = "only links use them")]
use crate::{Execution, Idempotency, IdempotencyLayer, Steps, Verdict};

#[doc = include_str!("clients.md")]
pub mod clients {}

#[doc = include_str!("consumers.md")]
pub mod consumers {}

#[doc = include_str!("emails.md")]
pub mod emails {}

#[doc = include_str!("graphql.md")]
pub mod graphql {}

#[doc = include_str!("migration.md")]
pub mod migration {}

#[doc = include_str!("observing.md")]
pub mod observing {}

#[doc = include_str!("orders.md")]
pub mod orders {}

#[doc = include_str!("payments.md")]
pub mod payments {}

#[doc = include_str!("repositories.md")]
pub mod repositories {}

#[doc = include_str!("routers.md")]
pub mod routers {}

#[doc = include_str!("signup.md")]
pub mod signup {}

#[doc = include_str!("steps.md")]
pub mod steps {}

#[doc = include_str!("tickets.md")]
pub mod tickets {}

#[doc = include_str!("webhooks.md")]
pub mod webhooks {}
