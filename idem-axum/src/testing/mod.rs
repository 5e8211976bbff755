//! What a service needs to test in its own CI that its handlers replay. Feature `testing`.
//!
//! Owns a check that sends a request several times ([`assert_replays`], [`ReplayTest`]) and what it found
//! ([`ReplayReport`]), and a backend that fails, stalls or loses claims on demand ([`ScriptedBackend`]). Does not own
//! what is promised: that is in `docs/semantics.md`.
//!
//! # Testing your handlers
//!
//! Three lines in a test that has the application's router:
//!
//! ```
//! use axum::http::Request;
//! use idem_axum::testing::assert_replays;
//! # use axum::{Router, routing::post};
//! # use idem_axum::{Idempotency, MemoryBackend, idempotent};
//!
//! # #[idempotent(ttl = "24h", scope = global)]
//! # async fn place_order(body: String) -> String {
//! #     body
//! # }
//! #
//! # fn app() -> Router {
//! #     Router::new().route("/orders", post(place_order)).layer(Idempotency::new(MemoryBackend::new()))
//! # }
//! #
//! # #[tokio::main]
//! # async fn main() -> Result<(), axum::http::Error> {
//! let request = Request::post("/orders").header("Idempotency-Key", "order-1").body("an umbrella")?;
//! let answer = assert_replays(&app(), request).await;
//! assert_eq!(answer.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! The request is sent four times at once and once more after that. The test fails, and says what differs, where the
//! handler ran more than once or a replay is not the first answer in status, headers and body.
//!
//! With a [`ScriptedBackend`] in place of the real one, the same router shows what clients get when the backend is away,
//! slow, or has lost a record.

mod answer;
mod judge;
mod replays;
mod report;
mod script;
mod scripted;

pub use self::replays::{ReplayTest, assert_replays};
pub use self::report::{Finding, ReplayReport};
pub use self::script::{BackendCall, Fault, Stall};
pub use self::scripted::ScriptedBackend;
