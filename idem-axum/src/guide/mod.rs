//! Guides, a page each: how a service of some kind is made safe to retry, and how its clients call again.
//!
//! | guide | shows |
//! |---|---|
//! | [`payments`] | a charge at a provider, and rows of one's own database beside it |
//! | [`orders`] | many tenants, refused orders, clients that write their JSON anew |
//! | [`tickets`] | seats that are sold once, and a buyer whose retry is not told that the seat is taken |
//! | [`emails`] | an effect that cannot be taken back and that nobody can be asked about |
//! | [`webhooks`] | senders that deliver an event again, under a natural key |
//! | [`consumers`] | messages of a broker, handled by a router of one's own |
//! | [`clients`] | keys and retries, seen from the other side, in curl, reqwest and JavaScript |
//! | [`routers`] | routers that read a handler's signature: typed routes of `axum-extra`, and `aide` |
//! | [`migration`] | from Redis code written by hand, and from `axum-idempotent` |
//!
//! The programs keep their records in a `MemoryBackend`, so that they run anywhere. A service that has to know what it did
//! before it was started again, or that runs more than once, keeps them in Redis or Postgres.
//!
//! Every Rust program on them is run by the tests of this crate, and asserts what the text beside it says (the one on
//! Postgres is compiled, and `examples/payments` runs its like); those for the
//! shell and for JavaScript are run against a service of the integration tests. The numbered rules, such as IDEM-7, are in
//! `docs/semantics.md`.

// What the pages name. Links in them are followed in rustdoc, and read as plain names everywhere else.
#[allow(unused_imports, reason = "only links use them")]
use crate::{Execution, Idempotency};

#[doc = include_str!("clients.md")]
pub mod clients {}

#[doc = include_str!("consumers.md")]
pub mod consumers {}

#[doc = include_str!("emails.md")]
pub mod emails {}

#[doc = include_str!("migration.md")]
pub mod migration {}

#[doc = include_str!("orders.md")]
pub mod orders {}

#[doc = include_str!("payments.md")]
pub mod payments {}

#[doc = include_str!("routers.md")]
pub mod routers {}

#[doc = include_str!("tickets.md")]
pub mod tickets {}

#[doc = include_str!("webhooks.md")]
pub mod webhooks {}
