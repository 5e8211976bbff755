//! The bodies of answers.
//!
//! Owns the two body types: [`Body`] of the answers that idem makes or replays, and [`ResponseBody`] of all answers, which
//! may also be the handler's own body, passed on or relayed.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

use crate::answer::Relay;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A piece of a body.
pub(crate) type Piece = Result<Frame<Bytes>, BoxError>;

/// A handler's body, as every web framework has it. Implemented for each type that fits.
pub trait HandlerBody: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static {}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static> HandlerBody for B {}

/// The body of an answer that idem makes or replays.
pub struct Body(Content);

enum Content {
    Bytes(Bytes),
    /// The client sees the length only at the end.
    LengthNotTold(Bytes),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    /// A body without a byte.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Content::Bytes(Bytes::new()))
    }

    /// Any body, behind a pointer.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Content::Boxed(body.map_err(Into::into).boxed_unsync()))
    }

    /// A body whose length the client sees only at the end.
    pub(crate) const fn with_length_not_told(bytes: Bytes) -> Self {
        Self(Content::LengthNotTold(bytes))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(Content::Bytes(bytes.into()))
    }
}

impl fmt::Debug for Body {
    /// Shows no byte of an answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match &mut self.0 {
            Content::Bytes(bytes) | Content::LengthNotTold(bytes) => {
                let rest = std::mem::take(bytes);
                Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
            }
            Content::Boxed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::LengthNotTold(_) => SizeHint::default(),
            Content::Boxed(body) => body.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Bytes(bytes) => bytes.is_empty(),
            Content::LengthNotTold(_) => false,
            Content::Boxed(body) => body.is_end_stream(),
        }
    }
}

/// The body of an answer to a request that idem guards; `B` is the handler's own.
pub struct ResponseBody<B>(Source<B>);

enum Source<B> {
    Made(Body),
    Own(B),
    /// Behind a pointer, because it is three times as large as the others, and an answer is moved many times.
    Relayed(Box<Relay<B>>),
}

impl<B> ResponseBody<B> {
    /// The handler's own body, passed on as it is.
    pub const fn own(body: B) -> Self {
        Self(Source::Own(body))
    }

    pub(crate) fn relayed(relay: Relay<B>) -> Self {
        Self(Source::Relayed(Box::new(relay)))
    }

    /// The handler's own body, if that is what is passed on.
    ///
    /// # Errors
    ///
    /// Any other body, as it is.
    pub fn into_own(self) -> Result<B, Self> {
        match self.0 {
            Source::Own(body) => Ok(body),
            source => Err(Self(source)),
        }
    }
}

impl<B> From<Body> for ResponseBody<B> {
    fn from(body: Body) -> Self {
        Self(Source::Made(body))
    }
}

/// An answer that idem makes or replays, among the answers of a handler.
pub fn made<B>(answer: Response<Body>) -> Response<ResponseBody<B>> {
    answer.map(ResponseBody::from)
}

impl<B> fmt::Debug for ResponseBody<B> {
    /// Shows no byte of an answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl<B: HandlerBody> HttpBody for ResponseBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match &mut self.0 {
            Source::Made(body) => Pin::new(body).poll_frame(context),
            Source::Own(body) => Pin::new(body)
                .poll_frame(context)
                .map(|piece| piece.map(|piece| piece.map_err(Into::into))),
            Source::Relayed(relay) => Pin::new(&mut **relay).poll_frame(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Made(body) => body.size_hint(),
            Source::Own(body) => body.size_hint(),
            Source::Relayed(relay) => relay.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Made(body) => body.is_end_stream(),
            Source::Own(body) => body.is_end_stream(),
            Source::Relayed(relay) => relay.is_end_stream(),
        }
    }
}
