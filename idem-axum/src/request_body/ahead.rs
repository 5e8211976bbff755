//! The frames that the guard has read and the argument has not.
//!
//! Owns their order, and joins small ones. Does not own who reads.

use std::collections::VecDeque;

use axum::body::Bytes;
use bytes::BytesMut;
use http_body::Frame;

use super::Item;

/// Below how many bytes a piece that is kept is joined with its neighbours, and up to how many.
const SMALL: usize = 4 * 1024;
const JOINED: usize = 64 * 1024;

/// Frames for the argument.
#[derive(Default)]
pub(super) struct Ahead {
    /// The frame behind the gathered piece. The argument gets it first.
    pub(super) after_gathered: Option<Item>,
    /// Frames that the guard has read while the argument held the body, in order.
    frames: VecDeque<Item>,
    /// The bytes behind those frames that came in small pieces.
    small: BytesMut,
}

impl Ahead {
    /// Keeps a frame for the argument. Small ones are joined, and empty ones left out: each of them would cost more than its
    /// bytes, and the limit counts bytes.
    pub(super) fn keep(&mut self, item: Item) {
        let item = match item.map(Frame::into_data) {
            Ok(Ok(data)) if data.len() < SMALL => {
                self.small.extend_from_slice(&data);
                if self.small.len() >= JOINED {
                    self.flush();
                }
                return;
            }
            Ok(Ok(data)) => Ok(Frame::data(data)),
            Ok(Err(trailers)) => Ok(trailers),
            Err(error) => Err(error),
        };
        self.flush();
        self.frames.push_back(item);
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            let joined = self.small.split().freeze();
            self.frames.push_back(Ok(Frame::data(joined)));
        }
    }

    /// Takes the next frame.
    pub(super) fn next(&mut self) -> Option<Item> {
        if self.frames.is_empty() {
            self.flush();
        }
        self.frames.pop_front()
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        let items = self.frames.iter().chain(&self.after_gathered);
        let data = items.filter_map(|item| item.as_ref().ok()?.data_ref());
        data.map(Bytes::len).sum::<usize>() + self.small.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.small.is_empty() && self.after_gathered.is_none()
    }
}
