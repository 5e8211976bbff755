//! The body of a request that is read before its record is claimed.
//!
//! Owns reading it whole, within a limit, and the body type that the handler gets in its place.

use std::error::Error;
use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, LengthLimitError};
use pin_project_lite::pin_project;

use crate::body::BoxError;
use crate::fingerprint::RequestHash;
use crate::interned::Gathering;
use crate::pieces::Pieces;

pin_project! {
    /// A request's body: as it came, or read already.
    pub struct RequestBody<B> {
        #[pin]
        source: Source<B>,
    }
}

pin_project! {
    #[project = SourceProjected]
    enum Source<B> {
        Own { #[pin] body: B },
        // Until they are taken.
        Buffered { data: Bytes, trailers: Option<HeaderMap> },
    }
}

impl<B> RequestBody<B> {
    /// A body as it came.
    pub const fn own(body: B) -> Self {
        Self {
            source: Source::Own { body },
        }
    }
}

/// Why a body could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// It has more bytes than the limit.
    TooLarge,
    /// It broke off.
    Failed(BoxError),
}

/// Reads `body` to its end, if it has at most `limit` bytes, and takes it into `hash`.
///
/// Requests that are `alike` may have the same large body, which they then share in memory.
///
/// # Errors
///
/// When the body is too large or breaks off. A body that is announced as too large is not read at all.
pub async fn buffer<B>(
    body: B,
    hash: &mut RequestHash,
    limit: u64,
    alike: impl FnOnce() -> u64,
) -> Result<RequestBody<B>, BodyError>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    let hint = body.size_hint();
    if hint.lower() > limit {
        return Err(BodyError::TooLarge);
    }
    let mut body = pin!(body);
    let mut shared = hint.exact().and_then(|len| Gathering::start(alike, len));
    let (mut pieces, mut read, mut trailers) = (Pieces::default(), 0, None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| body_error(error.into()))?.into_data() {
            Ok(data) => {
                read += data.len() as u64;
                if read > limit {
                    return Err(BodyError::TooLarge);
                }
                hash.update(&data);
                match &mut shared {
                    Some(shared) => shared.push(&data),
                    None => pieces.push(data),
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let data = shared.map_or_else(|| pieces.into(), Gathering::finish);
    Ok(RequestBody {
        source: Source::Buffered { data, trailers },
    })
}

/// A limit outside of this one may be the reason why a body breaks off.
fn body_error(error: BoxError) -> BodyError {
    let mut source: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = source {
        if error.is::<LengthLimitError>() {
            return BodyError::TooLarge;
        }
        source = error.source();
    }
    BodyError::Failed(error)
}

impl<B> fmt::Debug for RequestBody<B> {
    /// Shows no byte of a request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().source.project() {
            SourceProjected::Own { body } => body.poll_frame(context),
            SourceProjected::Buffered { data, trailers } => {
                let data = std::mem::take(data);
                if !data.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own { body } => body.size_hint(),
            Source::Buffered { data, trailers: None } => SizeHint::with_exact(data.len() as u64),
            // With an exact length, a client of HTTP/1.1 would announce it and leave the trailers out.
            Source::Buffered { data, .. } => {
                let mut hint = SizeHint::new();
                hint.set_lower(data.len() as u64);
                hint
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own { body } => body.is_end_stream(),
            Source::Buffered { data, trailers } => data.is_empty() && trailers.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http::{HeaderName, HeaderValue, Method, Uri};
    use http_body_util::StreamBody;

    use super::*;

    const LIMIT: u64 = 64 * 1024;

    fn hash() -> RequestHash {
        RequestHash::new(&Method::POST, &Uri::from_static("/o"), &HeaderMap::new())
    }

    /// A body in pieces, whose length is not told before.
    fn pieces(lengths: &[usize]) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>>> {
        let frames: Vec<_> = lengths
            .iter()
            .map(|len| Ok(Frame::data(vec![b'x'; *len].into())))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit_and_not_a_byte_further() {
        for (len, fits) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
            let len = usize::try_from(len).expect("it is small");
            let whole = http_body_util::Full::new(Bytes::from(vec![b'x'; len]));
            let buffered = [
                buffer(whole, &mut hash(), LIMIT, || 0).await.map(drop),
                buffer(pieces(&[1000, len - 1000]), &mut hash(), LIMIT, || 0)
                    .await
                    .map(drop),
            ];
            for result in buffered {
                assert_eq!(result.is_ok(), fits, "{len}: {result:?}");
            }
        }
    }

    #[tokio::test]
    async fn pieces_and_a_whole_are_one_body_with_one_hash_and_trailers_are_kept() {
        let (mut in_pieces, mut at_once) = (hash(), hash());
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);
        let body = pieces(&[3, 0, 4]).with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
        let body = buffer(body, &mut in_pieces, LIMIT, || 0).await.expect("it fits");
        let whole = http_body_util::Full::new(Bytes::from_static(b"xxxxxxx"));
        let _whole = buffer(whole, &mut at_once, LIMIT, || 0).await.expect("it fits");
        assert_eq!(in_pieces.finish(), at_once.finish());
        let collected = body.collect().await.expect("no failure");
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "xxxxxxx");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error() {
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"half"))),
            Err(std::io::Error::other("on purpose")),
        ];
        let failed = buffer(StreamBody::new(stream::iter(frames)), &mut hash(), LIMIT, || 0).await;
        assert!(matches!(failed, Err(BodyError::Failed(_))), "{failed:?}");
    }
}
