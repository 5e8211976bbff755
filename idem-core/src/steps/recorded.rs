//! The binary form of a recorded step.
//!
//! Owns the layout; golden bytes below freeze it. All integers are big-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | layout, 1 |
//! | 1 | state: 1 started, 2 done with its result, 3 done without |
//! | 2..6 | the attempt that recorded it |
//! | 6 | 1 if a digest of the step's input follows, 0 if not |
//! | 7..39 | that digest |
//! | rest | the result, in state 2 |

use bytes::{BufMut as _, Bytes, BytesMut};

const LAYOUT: u8 = 1;
const STARTED: u8 = 1;
const DONE: u8 = 2;
const DONE_WITHOUT: u8 = 3;

/// The digest of a step's input.
pub(super) type Input = [u8; 32];

/// How far a step has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its body may have begun.
    Started,
    /// Its body has ended with this result.
    Done(Bytes),
    /// Its body has ended, and its result is not kept.
    DoneWithout,
}

/// A step as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) attempt: u32,
    pub(super) input: Option<Input>,
    pub(super) progress: Progress,
}

impl Recorded {
    pub(super) fn encode(&self) -> Bytes {
        let (state, result): (_, &[u8]) = match &self.progress {
            Progress::Started => (STARTED, &[]),
            Progress::Done(result) => (DONE, result),
            Progress::DoneWithout => (DONE_WITHOUT, &[]),
        };
        let mut bytes = BytesMut::with_capacity(39 + result.len());
        bytes.put_u8(LAYOUT);
        bytes.put_u8(state);
        bytes.put_u32(self.attempt);
        bytes.put_u8(u8::from(self.input.is_some()));
        bytes.put_slice(self.input.as_ref().map_or(&[], |input| input.as_slice()));
        bytes.put_slice(result);
        bytes.freeze()
    }

    /// Reads [`encode`](Self::encode) back; `None` if the bytes are of another version, or broken.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(7)?;
        let [LAYOUT, state, a, b, c, d, has_input] = *head else {
            return None;
        };
        let (input, result) = match has_input {
            0 => (None, rest),
            1 => {
                let (input, result) = rest.split_first_chunk::<32>()?;
                (Some(*input), result)
            }
            _ => return None,
        };
        let progress = match (state, result) {
            (STARTED, []) => Progress::Started,
            (DONE, result) => Progress::Done(bytes.slice_ref(result)),
            (DONE_WITHOUT, []) => Progress::DoneWithout,
            _ => return None,
        };
        Some(Self {
            attempt: u32::from_be_bytes([a, b, c, d]),
            input,
            progress,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(input: Option<Input>, progress: Progress) -> Recorded {
        Recorded {
            attempt: 0x0102_0304,
            input,
            progress,
        }
    }

    #[test]
    fn the_layout_is_frozen_and_read_back() {
        let done = recorded(Some([7; 32]), Progress::Done(Bytes::from_static(b"{}")));
        let mut golden = vec![1, 2, 1, 2, 3, 4, 1];
        golden.extend([7; 32]);
        golden.extend(b"{}");
        assert_eq!(done.encode()[..], golden);
        let started = recorded(None, Progress::Started);
        assert_eq!(started.encode()[..], [1, 1, 1, 2, 3, 4, 0]);
        for recorded in [
            done,
            started,
            recorded(None, Progress::DoneWithout),
            recorded(None, Progress::Done(Bytes::new())),
        ] {
            assert_eq!(Recorded::decode(&recorded.encode()), Some(recorded));
        }
    }

    #[test]
    fn what_is_no_step_of_this_version_is_not_read() {
        let whole = recorded(Some([7; 32]), Progress::Started).encode();
        for len in 0..whole.len() {
            assert_eq!(Recorded::decode(&whole.slice(..len)), None, "{len}");
        }
        for (at, byte) in [(0, 2), (1, 0), (1, 4), (6, 2)] {
            let mut spoilt = whole.to_vec();
            spoilt[at] = byte;
            assert_eq!(Recorded::decode(&spoilt.into()), None, "{at}");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert_eq!(Recorded::decode(&longer.into()), None);
    }
}
