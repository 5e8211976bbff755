//! The binary form of a record.
//!
//! Owns the layout; golden bytes below freeze it, and `docs/formats.md` has it for users. All integers are big-endian.
//!
//! | bytes | claimed, or parked | completed | completed, with a large payload |
//! |---|---|---|---|
//! | 0 | layout, 2 | layout, 2 | layout, 2 |
//! | 1 | state: 1, 4 with steps, 7 parked with steps | state: 2 with a payload, 3 not stored, 6 unknown | state: 5 |
//! | 2..18 | token | token | token, which the payload's key ends with |
//! | 18..22 | attempt | attempt | attempt |
//! | 22..55 | fingerprint | fingerprint | fingerprint |
//! | 55..63 | when attempt 1 began, in milliseconds since 1970 | the same | the same |
//! | 63 | length n of the owner, 32 at most | the same | the same |
//! | 64..64+n | owner, UTF-8 | owner | owner |
//! | rest | ttl, then lease, each in milliseconds as u64 | payload | length of the payload as u64 |
//!
//! Layout 1 was never released. A record in it is refused as unreadable.

use std::io::Write as _;
use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use idem_core::claim::{millis_of_time, time_from_millis};
use idem_core::inspect::HEAD_LEN;
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Fingerprint, Owner, Token};
use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};

const LAYOUT: u8 = 2;
const CLAIMED: u8 = 1;
const STORED: u8 = 2;
const NOT_STORED: u8 = 3;
const WITH_STEPS: u8 = 4;
const STORED_BESIDE: u8 = 5;
const UNKNOWN: u8 = 6;
const PARKED: u8 = 7;

/// The states of a claim.
pub(crate) const CLAIMED_STATES: &[u8] = &[CLAIMED, WITH_STEPS];
/// The states of a parked record.
pub(crate) const PARKED_STATES: &[u8] = &[PARKED];
/// The states of a record that has its outcome.
pub(crate) const COMPLETED_STATES: &[u8] = &[STORED, NOT_STORED, STORED_BESIDE, UNKNOWN];

/// The most bytes of what all states begin with.
const MAX_HEADER_LEN: usize = 2 + Token::LEN + 4 + Fingerprint::LEN + 8 + 1 + Owner::MAX_LEN;

/// The most bytes of [`encode_claim`].
pub(crate) const MAX_CLAIM_LEN: usize = MAX_HEADER_LEN + 16;

/// How many bytes of a record a list reads: a whole claim, or the beginning of a completed record and of its payload.
pub(crate) const BEGINNING_LEN: usize = MAX_HEADER_LEN + HEAD_LEN;

/// The beginning of a record, or a whole claim.
pub(crate) struct Encoded {
    bytes: [u8; MAX_CLAIM_LEN],
    len: usize,
}

impl Encoded {
    fn new() -> Self {
        Self {
            bytes: [0; MAX_CLAIM_LEN],
            len: 0,
        }
    }

    /// Adds `part`. All parts of a claim fit.
    fn push(&mut self, part: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + part.len()) {
            place.copy_from_slice(part);
            self.len += part.len();
        }
    }
}

impl Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A record as it is stored. Whether its lease has lapsed is not known yet: the server's clock tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Claimed(Claim),
    Parked(Claim),
    /// `claim` is the one that was completed. Its `lease` and `ttl` are not stored, and zero.
    Completed {
        claim: Claim,
        completion: Completion,
    },
    /// The payload is under a key of its own. `claim` is as above.
    CompletedBeside {
        claim: Claim,
        /// The length of the payload, in bytes.
        len: usize,
    },
}

/// A duration in milliseconds. The limits of the engine's policies keep it far below the maximum.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The claim as it is stored before it has steps, whatever its `has_steps` says.
pub(crate) fn encode_claim(claim: &Claim) -> Encoded {
    encode_claim_in(CLAIMED, claim)
}

/// The claim as it is stored once it has steps.
pub(crate) fn encode_claim_with_steps(claim: &Claim) -> Encoded {
    encode_claim_in(WITH_STEPS, claim)
}

/// The claim as it is stored when its attempt has ended and its steps are kept.
pub(crate) fn encode_parked(claim: &Claim) -> Encoded {
    encode_claim_in(PARKED, claim)
}

/// Whether `held` is the claim that is encoded as `claim`, before its first step or after it.
pub(crate) fn is_claim(held: &[u8], claim: &[u8]) -> bool {
    match (held, claim) {
        ([layout, WITH_STEPS, held @ ..], [expected, _, claim @ ..]) => layout == expected && held == claim,
        _ => held == claim,
    }
}

fn encode_claim_in(state: u8, claim: &Claim) -> Encoded {
    let mut encoded = header(state, claim);
    encoded.push(&millis(claim.ttl).to_be_bytes());
    encoded.push(&millis(claim.lease).to_be_bytes());
    encoded
}

/// The state of a completed record whose payload is not beside it, and the payload.
pub(crate) fn state_of(completion: &Completion) -> (u8, Bytes) {
    match completion {
        Completion::Stored(payload) => (STORED, payload.clone()),
        Completion::NotStored => (NOT_STORED, Bytes::new()),
        Completion::Unknown => (UNKNOWN, Bytes::new()),
    }
}

/// A completed record as an argument of a command. The payload is not copied before the command is written.
pub(crate) struct Completed {
    header: Encoded,
    payload: Bytes,
}

impl Completed {
    pub(crate) fn new(claim: &Claim, completion: &Completion) -> Self {
        let (state, payload) = state_of(completion);
        let header = header(state, claim);
        Self { header, payload }
    }

    /// A record whose payload of `len` bytes is under a key of its own.
    pub(crate) fn beside(claim: &Claim, len: usize) -> Self {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        Self {
            header: header(STORED_BESIDE, claim),
            payload: Bytes::copy_from_slice(&len.to_be_bytes()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

impl ToRedisArgs for Completed {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        let mut argument = out.writer_for_next_arg();
        // Writing to memory cannot fail.
        let _ = argument.write_all(&self.header);
        let _ = argument.write_all(&self.payload);
    }
}

impl ToSingleRedisArg for Completed {}

fn header(state: u8, claim: &Claim) -> Encoded {
    let owner = claim.owner.as_str().as_bytes();
    let mut encoded = Encoded::new();
    encoded.push(&[LAYOUT, state]);
    encoded.push(&claim.token.to_bytes());
    encoded.push(&claim.attempt.to_be_bytes());
    encoded.push(&claim.fingerprint.to_bytes());
    encoded.push(&millis_of_time(claim.began_at).to_be_bytes());
    // An owner has at most 32 bytes.
    encoded.push(&[u8::try_from(owner.len()).unwrap_or_default()]);
    encoded.push(owner);
    encoded
}

/// Decodes a stored value. A value that is not a whole record of this layout is an error, never absent (IDEM-15).
pub(crate) fn decode(bytes: &Bytes) -> Result<Stored, BackendError> {
    decode_beginning(bytes, bytes.len()).map_err(|what| BackendError::new(BackendErrorKind::Unreadable, what))
}

/// Decodes the first [`BEGINNING_LEN`] bytes of a stored value of `len` bytes. The payload of the result is cut short as the bytes are.
/// The error says why the value is not a record.
pub(crate) fn decode_beginning(bytes: &Bytes, len: usize) -> Result<Stored, &'static str> {
    let mut rest = bytes.as_ref();
    let (state, mut claim) = take_header(&mut rest)?;
    let rest_len = (len + rest.len()).saturating_sub(bytes.len());
    let completion = match (state, rest_len) {
        (CLAIMED | WITH_STEPS | PARKED, 16) => {
            claim.ttl = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
            claim.lease = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
            claim.has_steps = state != CLAIMED;
            return Ok(if state == PARKED {
                Stored::Parked(claim)
            } else {
                Stored::Claimed(claim)
            });
        }
        (STORED_BESIDE, 8) => {
            let len = u64::from_be_bytes(take(&mut rest)?);
            let len = usize::try_from(len).map_err(|_| "its payload is larger than memory can be")?;
            return Ok(Stored::CompletedBeside { claim, len });
        }
        (STORED, _) => Completion::Stored(bytes.slice_ref(rest)),
        (NOT_STORED, 0) => Completion::NotStored,
        (UNKNOWN, 0) => Completion::Unknown,
        _ => return Err("its state and its length do not go together"),
    };
    Ok(Stored::Completed { claim, completion })
}

/// Takes what all states begin with: the state, and a claim whose other parts are not known yet.
fn take_header(rest: &mut &[u8]) -> Result<(u8, Claim), &'static str> {
    let [layout] = take(rest)?;
    if layout != LAYOUT {
        return Err("it is of another version, or not a record of idem");
    }
    let [state] = take(rest)?;
    let token = Token::from_bytes(take(rest)?);
    let attempt = u32::from_be_bytes(take(rest)?);
    let fingerprint = Fingerprint::from_bytes(take(rest)?);
    let began_at = time_from_millis(u64::from_be_bytes(take(rest)?));
    let [owner_len] = take(rest)?;
    let (owner, after) = rest.split_at_checked(owner_len.into()).ok_or("it is cut short")?;
    let owner = Owner::from_bytes(owner).ok_or("its owner is too long, or not text")?;
    *rest = after;
    let claim = Claim {
        token,
        attempt,
        fingerprint,
        lease: Duration::ZERO,
        ttl: Duration::ZERO,
        began_at,
        owner,
        has_steps: false,
    };
    Ok((state, claim))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (head, tail) = rest.split_first_chunk().ok_or("it is cut short")?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests;
