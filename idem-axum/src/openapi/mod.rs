//! Describes annotated handlers in `OpenAPI` documents made by utoipa. Feature `utoipa`.
//!
//! Owns what a client is told of idempotency in such a document: the header of the key, the marker of replays, and the
//! answers given in place of the handler's. Does not own the operations themselves: they are `#[utoipa::path]`'s.
//!
//! # One line
//!
//! [`Idempotency`] is a [`Modify`] of utoipa's, so the layer that an application has describes its
//! handlers, with the defaults and the documentation page that were set on it:
//!
//! ```
//! # mod app {
//! use idem_axum::{Idempotency, MemoryBackend, idempotent};
//! use utoipa::{Modify as _, OpenApi as _};
//!
//! #[idempotent(ttl = "24h", scope = global, in_flight = "accept")]
//! #[utoipa::path(post, path = "/orders", request_body = String, responses((status = 201, description = "Placed.", body = String)))]
//! pub async fn place_order(item: String) -> String {
//!     format!("{item} is on its way")
//! }
//!
//! #[derive(utoipa::OpenApi)]
//! #[openapi(paths(place_order))]
//! struct Api;
//!
//! pub fn document(idempotency: &Idempotency) -> utoipa::openapi::OpenApi {
//!     let mut document = Api::openapi();
//!     idempotency.modify(&mut document); // this one
//!     document
//! }
//! # }
//! # use idem_axum::{Idempotency, MemoryBackend};
//!
//! let document = app::document(&Idempotency::new(MemoryBackend::new()));
//! let operation = &serde_json::to_value(document)?["paths"]["/orders"]["post"];
//! assert_eq!(operation["parameters"][0]["name"], "Idempotency-Key");
//! assert_eq!(operation["parameters"][0]["required"], true);
//! assert!(operation["responses"]["201"]["headers"]["Idempotent-Replayed"].is_object());
//! for status in ["202", "400", "409", "422", "503"] {
//!     assert!(operation["responses"][status].is_object());
//! }
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! `#[idempotent]` stands above `#[utoipa::path]`: it then notes its options in the description, as the extension
//! `x-idempotency`, and the line above puts into words what they mean. So the document cannot say anything else than the
//! attribute does. A `#[utoipa::path]` that stands above, or is imported under another name, describes its handler without
//! its idempotency; the compiler warns of that, as of something deprecated. There is no warning where
//! `#[tracing::instrument]` stands above as well.
//!
//! # What is described
//!
//! | where | what | depends on |
//! |---|---|---|
//! | parameters | the header of the key | `header`, `required`; none with `key = …` |
//! | each answer that is kept | `Idempotent-Replayed` | `store` |
//! | 202 | accepted, with `Retry-After` | `in_flight = "accept"` |
//! | 400, 409, 422, 503 | the problems, as `docs/http.md` has them, with an example of each | `required`, `in_flight`, `after_crash` |
//! | 500, 503 | that the effects were rolled back, or that their outcome is not known | an argument whose type is written `Transaction` or `Joint` |
//!
//! A [`Verdict`](crate::Verdict) is not seen in a signature. If a handler keeps a failure by it, the document does not say that the failure
//! may be a replay. If it answers with `Verdict::Unknown`, describe the 409 `outcome-unknown` in `#[utoipa::path]`.
//!
//! An answer that the handler describes itself keeps what it says; ours is added as another content type. Of problems in
//! a format of the application's own
//! ([`with_problem_response`](Idempotency::with_problem_response)) there is no schema to show.

mod answers;
pub(crate) mod mark;

use utoipa::Modify;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{Components, OpenApi};

use self::answers::Answers;
use self::mark::Mark;
use crate::Idempotency;

/// The name of the schema of problems, among the components of a document.
pub const PROBLEM_SCHEMA: &str = "IdempotencyProblem";

/// Describes the handlers of a document that are annotated and not yet described. See the [module](crate::openapi).
impl Modify for Idempotency {
    fn modify(&self, document: &mut OpenApi) {
        let settings = self.settings();
        let mut components = document.components.take().unwrap_or_default();
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            if let Some(mark) = Mark::take(operation) {
                Answers::new(&mark, self).describe(operation, &components);
                if settings.problem_response.is_none() {
                    let schema = answers::problem_schema();
                    components.schemas.insert(PROBLEM_SCHEMA.to_owned(), schema);
                }
            }
        }
        document.components = (components != Components::default()).then_some(components);
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let known = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.options,
        &mut item.head,
        &mut item.patch,
        &mut item.trace,
        &mut item.query,
    ];
    let others = item.additional_operations.values_mut();
    known.into_iter().flatten().chain(others)
}
