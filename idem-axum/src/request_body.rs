//! A request's body on its way through the handler's last argument.
//!
//! Owns who reads what. The argument reads the body as it would without the attribute, and what it reads is hashed on the
//! way, so that nothing is buffered beside it. What it leaves is read before the claim, where the body is compared: within
//! axum's body limit, and kept only if the argument still holds the body. Where the body is not compared, only the
//! argument reads it.

mod ahead;
mod passing;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use axum::body::{Body, Bytes};
use axum::extract::FromRequest as _;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{BoxError, RequestExt as _};
use futures_util::FutureExt as _;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Limited;
use idem_core::Fingerprint;

use self::ahead::Ahead;
pub(crate) use self::passing::Passing;
use idem_http::RequestIdentity;
use idem_http::fingerprint::{self, RequestHash};
use idem_http::interned::Gathering;

type Item = Result<Frame<Bytes>, BoxError>;

/// The body of one request, which its argument and its guard share.
pub(crate) struct RequestBody(Mutex<State>);

/// Why the rest of a body could not be read.
#[derive(Debug)]
pub(crate) enum Unread {
    TooLarge,
    Failed(BoxError),
}

struct State {
    source: Body,
    progress: Progress,
    hash: Hash,
    /// How many bytes were read.
    read: u64,
    /// axum's limit for bodies, in bytes.
    limit: Option<u64>,
    /// A large body of known length, as far as it is there: it is handed out in one piece, which equal ones share.
    gathered: Option<Gathering>,
    /// Frames that the guard has read and the argument has not; `None` for most requests.
    ahead: Option<Box<Ahead>>,
    argument: Argument,
    /// Who waits for the next frame, the argument or the guard. The source tells only the one that asked last.
    waiting: [Option<Waker>; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Reading,
    Ended,
    Failed,
}

#[derive(Default)]
struct Argument {
    has_read: bool,
    is_gone: bool,
}

enum Hash {
    /// The body is not compared.
    Off,
    On(RequestHash),
    Done([u8; 32]),
}

/// The two that read.
#[derive(Clone, Copy)]
enum Reader {
    Argument = 0,
    Guard = 1,
}

/// axum's limit for the body of `request`, in bytes; none where it is switched off.
pub(crate) fn limit(request: &mut Request) -> Option<u64> {
    // The limit is a secret of axum's, but it is applied to whatever body has the extensions of a request.
    let mut other = Request::new(Body::new(passing::Unbounded));
    std::mem::swap(other.extensions_mut(), request.extensions_mut());
    let mut other = other.with_limited_body();
    std::mem::swap(other.extensions_mut(), request.extensions_mut());
    other.body().size_hint().upper()
}

impl RequestBody {
    /// A body that comes from `source`, of which not more than `limit` bytes are read in place of the argument. `hash` is
    /// there if it is compared; requests that are `alike` may have the same one.
    pub(crate) fn new(
        source: Body,
        hash: Option<RequestHash>,
        limit: Option<u64>,
        alike: impl FnOnce() -> u64,
    ) -> Self {
        let expected = source.size_hint().exact();
        let is_within_limit = |len: &u64| limit.is_none_or(|limit| *len <= limit);
        let gathered = expected.filter(|len| hash.is_some() && is_within_limit(len));
        Self(Mutex::new(State {
            source,
            progress: Progress::Reading,
            hash: hash.map_or(Hash::Off, Hash::On),
            read: 0,
            limit,
            gathered: gathered.and_then(|len| Gathering::start(alike, len)),
            ahead: None,
            argument: Argument::default(),
            waiting: [None, None],
        }))
    }

    /// A body without a byte, which the argument has for itself.
    pub(crate) fn empty(hash: Option<RequestHash>) -> Self {
        let body = Self::new(Body::empty(), None, None, || 0);
        let mut state = body.lock();
        state.progress = Progress::Ended;
        state.argument.is_gone = true;
        if let Some(hash) = hash {
            state.hash = Hash::Done(hash.finish());
        }
        drop(state);
        body
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A source that panics leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the argument is made of the body.
    pub(crate) fn was_read_by_argument(&self) -> bool {
        self.lock().argument.has_read
    }

    /// The body is not compared after all: only the argument reads it.
    pub(crate) fn leave_to_argument(&self) {
        let mut state = self.lock();
        state.hash = Hash::Off;
        if let Some(gathered) = state.gathered.take().filter(|gathered| gathered.gathered_len() > 0) {
            state.ahead().keep(Ok(Frame::data(gathered.finish())));
        }
        state.let_go();
    }

    /// Reading the rest has failed, and the handler runs all the same: the argument finds what the guard has found.
    pub(crate) fn give_back(&self, unread: Unread) {
        if let Unread::Failed(error) = unread {
            self.lock().ahead().keep(Err(error));
        }
        self.leave_to_argument();
    }

    /// What is compared, if the argument has read all that there is.
    pub(crate) fn compared(&self) -> Option<RequestIdentity> {
        self.lock().compared()
    }

    /// Reads what the argument has left, and says what is compared.
    pub(crate) fn read_rest(&self) -> impl Future<Output = Result<RequestIdentity, Unread>> + Send {
        poll_fn(|context| {
            let mut state = self.lock();
            let rest = state.poll_rest(context);
            if rest.is_ready() {
                state.let_go();
            }
            rest
        })
    }
}

impl State {
    /// Drops what neither the argument nor the guard reads any more.
    fn let_go(&mut self) {
        if self.argument.is_gone {
            self.ahead = None;
            if self.progress != Progress::Reading || matches!(self.hash, Hash::Off) {
                self.source = Body::empty();
                self.gathered = None;
            }
        }
    }

    fn compared(&mut self) -> Option<RequestIdentity> {
        let is_incomplete = match self.progress {
            Progress::Reading => return None,
            Progress::Ended => false,
            Progress::Failed => true,
        };
        Some(self.compare(is_incomplete))
    }

    fn compare(&mut self, is_incomplete: bool) -> RequestIdentity {
        let digest = self.digest();
        let fingerprint = match digest {
            None => Fingerprint::NONE,
            Some(digest) if is_incomplete => fingerprint::of_incomplete_request(digest),
            Some(digest) => fingerprint::of_request(digest),
        };
        RequestIdentity {
            fingerprint,
            is_incomplete,
        }
    }

    /// Of what was read so far, which is all that will count.
    fn digest(&mut self) -> Option<[u8; 32]> {
        let digest = match std::mem::replace(&mut self.hash, Hash::Off) {
            Hash::Off => return None,
            Hash::On(hash) => hash.finish(),
            Hash::Done(digest) => digest,
        };
        self.hash = Hash::Done(digest);
        Some(digest)
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Result<RequestIdentity, Unread>> {
        loop {
            // The argument has not seen that the body failed.
            let after = self.ahead.as_mut().map(|ahead| &mut ahead.after_gathered);
            if let Some(Err(error)) = after.and_then(|after| after.take_if(|item| item.is_err())) {
                return Poll::Ready(Err(Unread::Failed(error)));
            }
            if let Some(compared) = self.compared() {
                return Poll::Ready(Ok(compared));
            }
            if self.limit.is_some_and(|limit| self.read > limit) {
                // An argument that has read so far and let go of the body has an answer of its own to that.
                if !(self.argument.has_read && self.argument.is_gone) {
                    return Poll::Ready(Err(Unread::TooLarge));
                }
                self.progress = Progress::Failed;
                continue;
            }
            match ready!(self.poll_source(Reader::Guard, context)) {
                Some(Err(error)) => return Poll::Ready(Err(Unread::Failed(error))),
                Some(item) if !self.argument.is_gone => self.ahead().keep(item),
                Some(_) | None => {}
            }
        }
    }

    fn ahead(&mut self) -> &mut Ahead {
        self.ahead.get_or_insert_default()
    }

    /// The next frame for the argument.
    fn poll_argument(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.argument.has_read = true;
        match self.ahead.as_mut().and_then(|ahead| ahead.next()) {
            Some(item) => Poll::Ready(Some(item)),
            None => self.poll_source(Reader::Argument, context),
        }
    }

    /// The next frame of the request.
    fn poll_source(&mut self, reader: Reader, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let polled = self.poll_frame(context);
        let [own, other] = match reader {
            Reader::Argument => [Reader::Argument, Reader::Guard],
            Reader::Guard => [Reader::Guard, Reader::Argument],
        };
        if polled.is_pending() {
            self.waiting[own as usize] = Some(context.waker().clone());
        } else if let Some(waker) = self.waiting[other as usize].take() {
            waker.wake();
        }
        polled
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        if let Some(item) = self.ahead.as_mut().and_then(|ahead| ahead.after_gathered.take()) {
            return Poll::Ready(Some(item));
        }
        while self.progress == Progress::Reading {
            let item = match ready!(Pin::new(&mut self.source).poll_frame(context)) {
                None => {
                    self.progress = Progress::Ended;
                    self.digest();
                    None
                }
                Some(Err(error)) => {
                    self.progress = Progress::Failed;
                    // As it was before axum wrapped it, because axum is about to wrap it again.
                    Some(Err(error.into_inner()))
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read += data.len() as u64;
                        if let Hash::On(hash) = &mut self.hash {
                            hash.update(data);
                        }
                        if self.argument.is_gone {
                            self.gathered = None;
                        }
                        if let Some(gathered) = &mut self.gathered {
                            gathered.push(data);
                            continue;
                        }
                    }
                    Some(Ok(frame))
                }
            };
            return Poll::Ready(self.in_order(item));
        }
        Poll::Ready(None)
    }

    /// What was gathered comes first.
    fn in_order(&mut self, item: Option<Item>) -> Option<Item> {
        let Some(gathered) = self.gathered.take().filter(|gathered| gathered.gathered_len() > 0) else {
            return item;
        };
        self.ahead().after_gathered = item;
        Some(Ok(Frame::data(gathered.finish())))
    }

    /// What the argument can still expect.
    fn size_hint(&self) -> SizeHint {
        let mut hint = match self.progress {
            Progress::Reading => self.source.size_hint(),
            Progress::Ended | Progress::Failed => SizeHint::with_exact(0),
        };
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.len());
        let here = (ahead + self.gathered.as_ref().map_or(0, Gathering::gathered_len)) as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(here));
        }
        hint.set_lower(hint.lower().saturating_add(here));
        hint
    }

    fn is_end_stream(&self) -> bool {
        let nothing_here = self.gathered.is_none() && self.ahead.as_ref().is_none_or(|ahead| ahead.is_empty());
        nothing_here && (self.progress != Progress::Reading || self.source.is_end_stream())
    }
}

impl Unread {
    /// axum's own answer to it.
    pub(crate) async fn into_response(self) -> Response {
        let body = match self {
            // axum tells by the type of the error, and only `Limited` makes that type.
            Self::TooLarge => Body::new(Limited::new(Body::from("x"), 0)),
            Self::Failed(error) => Body::new(passing::Failing(Some(error))),
        };
        match Bytes::from_request(Request::new(body), &()).boxed().await {
            Ok(_empty) => StatusCode::BAD_REQUEST.into_response(),
            Err(rejection) => rejection.into_response(),
        }
    }
}

#[cfg(test)]
mod tests;
