//! A request as it is captured before its last argument is extracted.
//!
//! Owns what the guard needs to know of a request that extractors consume: its head, its key lines, and its body on the way
//! through the argument.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::body::Body;
use axum::extract::{MatchedPath, OriginalUri, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use http_body::Body as _;
use idem_http::fingerprint::RequestHash;
use idem_http::interned;

use crate::Execution;
use crate::layer::LayerRun;
use crate::memory_notice::came_over_a_connection;
use crate::request_body::{self, Passing, RequestBody};

/// A request, but for what its extractors made of it.
pub(crate) struct CapturedRequest {
    pub(crate) method: Method,
    /// As the client sent it, also inside nested routers.
    pub(crate) uri: Uri,
    pub(crate) matched_path: Option<MatchedPath>,
    /// Where a route matched and an expression is compared.
    pub(crate) path_parameters: Option<RawPathParams>,
    pub(crate) key_lines: KeyLines,
    pub(crate) body: RequestBody,
    /// The claim of a layer around the handler, if there is one.
    pub(crate) layer: Option<LayerRun>,
    /// Whether the scope is made of the argument.
    pub(crate) is_scoped_by_argument: bool,
    /// Whether it came over a connection, where the log may have to say so.
    pub(crate) came_over_a_connection: bool,
    /// To be filled in for an argument that asks for it.
    pub(crate) execution: Execution,
    #[cfg(feature = "transaction")]
    pub(crate) transaction: crate::transaction::Slot,
}

/// The header lines that carry the key. A copy of all headers costs more than anything else that is kept of a request.
pub(crate) enum KeyLines {
    /// The first two lines. A request that has two is refused.
    Known([Option<HeaderValue>; 2]),
    /// They are among these, where the name of the header comes with the operation.
    Among(HeaderMap),
}

impl KeyLines {
    fn of(headers: &HeaderMap, header: Option<&str>) -> Self {
        let Some(name) = header else {
            return Self::Among(headers.clone());
        };
        let mut lines = headers.get_all(name).iter().cloned();
        Self::Known([lines.next(), lines.next()])
    }

    /// The first line, where it is known which header carries the key.
    fn known(&self) -> Option<&HeaderValue> {
        match self {
            Self::Known([first, _]) => first.as_ref(),
            Self::Among(_) => None,
        }
    }

    /// Those of the header called `name`.
    pub(crate) fn named(&self, name: &str) -> [Option<&HeaderValue>; 2] {
        match self {
            Self::Known([first, second]) => [first.as_ref(), second.as_ref()],
            Self::Among(headers) => {
                let mut lines = headers.get_all(name).iter();
                [lines.next(), lines.next()]
            }
        }
    }
}

/// The values in the path, where a route has matched.
pub(crate) async fn path_parameters(request: &mut Request) -> Option<RawPathParams> {
    request.extensions().get::<MatchedPath>()?;
    request.extract_parts().await.ok()
}

/// The facts about a handler that the extraction of its last argument needs.
pub(crate) struct HandlerFacts {
    /// The header that carries the key, where that is known already.
    pub(crate) header: Option<&'static str>,
    pub(crate) is_body_compared: bool,
    /// Where a route matched and an expression is compared.
    pub(crate) path_parameters: Option<RawPathParams>,
    /// Whether the scope is made of the last argument.
    pub(crate) is_scoped_by_argument: bool,
    pub(crate) watches_for_connections: bool,
}

/// Captures the facts of a request that the guard needs, and puts itself between the request's body and the argument. It does
/// not depend on the type of the argument, so it is compiled once.
pub(crate) fn capture(request: &mut Request, facts: HandlerFacts) -> Arc<CapturedRequest> {
    // The execution that an earlier argument has, or that the last one will find.
    let execution = Execution::of(request.extensions_mut());
    #[cfg(feature = "transaction")]
    let transaction = crate::transaction::Slot::of(request.extensions_mut());
    let key_lines = KeyLines::of(request.headers(), facts.header);
    let original = request.extensions().get::<OriginalUri>();
    let uri = original.map_or_else(|| request.uri().clone(), |original| original.0.clone());
    let hash = || RequestHash::new(request.method(), &uri, request.headers());
    let hash = facts.is_body_compared.then(hash);
    // Whether an empty body is read makes a difference to the scope alone.
    let is_passed = facts.is_scoped_by_argument || !request.body().is_end_stream();
    let body = if is_passed {
        let limit = hash.as_ref().and_then(|_| request_body::limit(request));
        let source = std::mem::take(request.body_mut());
        RequestBody::new(source, hash, limit, || {
            interned::alike(request.method(), &uri, key_lines.known())
        })
    } else {
        RequestBody::empty(hash)
    };
    let layer = request.extensions().get::<LayerRun>();
    let layer = layer.filter(|layer| layer.has_claim()).cloned();
    if let Some(layer) = &layer {
        layer.warn_of_handler(request.method(), uri.path());
    }
    let came_over_a_connection = facts.watches_for_connections && came_over_a_connection(&uri, request.headers());
    let captured = Arc::new(CapturedRequest {
        method: request.method().clone(),
        uri,
        matched_path: request.extensions().get::<MatchedPath>().cloned(),
        path_parameters: facts.path_parameters,
        key_lines,
        layer,
        body,
        is_scoped_by_argument: facts.is_scoped_by_argument,
        came_over_a_connection,
        execution,
        #[cfg(feature = "transaction")]
        transaction,
    });
    if is_passed {
        *request.body_mut() = Body::new(Passing(captured.clone()));
    }
    captured
}
