//! The binary form of a record.
//!
//! Owns the layout; golden bytes below freeze it, and `docs/formats.md` has it for users. All integers are big-endian.
//!
//! | bytes | claimed | completed | completed, with a large payload |
//! |---|---|---|---|
//! | 0 | layout, 2 | layout, 2 | layout, 2 |
//! | 1 | state: 1 | state: 2 with a payload, 3 not stored, 6 unknown | state: 5 |
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
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Fingerprint, Owner, Token};
use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};

const LAYOUT: u8 = 2;
const CLAIMED: u8 = 1;
const STORED: u8 = 2;
const NOT_STORED: u8 = 3;
const STORED_BESIDE: u8 = 5;
const UNKNOWN: u8 = 6;

/// The most bytes of what all states begin with.
const MAX_HEADER_LEN: usize = 2 + Token::LEN + 4 + Fingerprint::LEN + 8 + 1 + Owner::MAX_LEN;

/// The most bytes of [`encode_claim`].
pub(crate) const MAX_CLAIM_LEN: usize = MAX_HEADER_LEN + 16;

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
    Completed {
        fingerprint: Fingerprint,
        completion: Completion,
    },
    /// The payload is under a key of its own.
    CompletedBeside {
        fingerprint: Fingerprint,
        token: Token,
        /// The length of the payload, in bytes.
        len: usize,
    },
}

/// A duration in milliseconds. The limits of the engine's policies keep it far below the maximum.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn encode_claim(claim: &Claim) -> Encoded {
    let mut encoded = header(CLAIMED, claim);
    encoded.push(&millis(claim.ttl).to_be_bytes());
    encoded.push(&millis(claim.lease).to_be_bytes());
    encoded
}

/// A completed record as an argument of a command. The payload is not copied before the command is written.
pub(crate) struct Completed {
    header: Encoded,
    payload: Bytes,
}

impl Completed {
    pub(crate) fn new(claim: &Claim, completion: &Completion) -> Self {
        let (state, payload) = match completion {
            Completion::Stored(payload) => (STORED, payload.clone()),
            Completion::NotStored => (NOT_STORED, Bytes::new()),
            Completion::Unknown => (UNKNOWN, Bytes::new()),
        };
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
    decode_parts(bytes).map_err(|what| BackendError::new(BackendErrorKind::Unreadable, what))
}

fn decode_parts(bytes: &Bytes) -> Result<Stored, &'static str> {
    let mut rest = bytes.as_ref();
    let [layout] = take(&mut rest)?;
    if layout != LAYOUT {
        return Err("it is of another version, or not a record of idem");
    }
    let [state] = take(&mut rest)?;
    let token = Token::from_bytes(take(&mut rest)?);
    let attempt = u32::from_be_bytes(take(&mut rest)?);
    let fingerprint = Fingerprint::from_bytes(take(&mut rest)?);
    let began_at = time_from_millis(u64::from_be_bytes(take(&mut rest)?));
    let [owner_len] = take(&mut rest)?;
    let (owner, rest) = rest.split_at_checked(owner_len.into()).ok_or("it is cut short")?;
    let owner = Owner::from_bytes(owner).ok_or("its owner is too long, or not text")?;
    let mut rest = rest;
    let completion = match (state, rest.len()) {
        (CLAIMED, 16) => {
            let ttl = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
            let lease = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
            return Ok(Stored::Claimed(Claim {
                token,
                attempt,
                fingerprint,
                lease,
                ttl,
                began_at,
                owner,
            }));
        }
        (STORED_BESIDE, 8) => {
            let len = u64::from_be_bytes(take(&mut rest)?);
            return Ok(Stored::CompletedBeside {
                fingerprint,
                token,
                len: usize::try_from(len).map_err(|_| "its payload is larger than memory can be")?,
            });
        }
        (STORED, _) => Completion::Stored(bytes.slice_ref(rest)),
        (NOT_STORED, 0) => Completion::NotStored,
        (UNKNOWN, 0) => Completion::Unknown,
        _ => return Err("its state and its length do not go together"),
    };
    Ok(Stored::Completed {
        fingerprint,
        completion,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (head, tail) = rest.split_first_chunk().ok_or("it is cut short")?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn claim() -> Claim {
        Claim {
            token: Token::from_bytes(*b"0123456789abcdef"),
            attempt: 2,
            fingerprint: Fingerprint::new(1, [0xEE; 32]),
            lease: Duration::from_secs(30),
            ttl: Duration::from_hours(24),
            began_at: time_from_millis(1_764_000_000_123),
            owner: Owner::new("web:1"),
        }
    }

    fn encode_claim(claim: &Claim) -> Vec<u8> {
        super::encode_claim(claim).to_vec()
    }

    fn encode_completion(claim: &Claim, completion: &Completion) -> Vec<u8> {
        let completed = Completed::new(claim, completion);
        let bytes = completed.to_redis_args().concat();
        assert_eq!(bytes.len(), completed.len());
        bytes
    }

    fn golden(state: u8, rest: &[u8]) -> Vec<u8> {
        let began_at = [0, 0, 1, 0x9A, 0xB6, 0x97, 0xE8, 0x7B];
        let head: &[&[u8]] = &[
            &[2, state],
            b"0123456789abcdef",
            &[0, 0, 0, 2, 1],
            &[0xEE; 32],
            &began_at,
            b"\x05web:1",
            rest,
        ];
        head.concat()
    }

    /// A claim that says another length of its owner than it has.
    fn with_owner_len(len: u8) -> Vec<u8> {
        let mut value = encode_claim(&claim());
        value[63] = len;
        value
    }

    #[test]
    fn stored_values_are_frozen() {
        let day_and_half_a_minute = [0, 0, 0, 0, 5, 38, 92, 0, 0, 0, 0, 0, 0, 0, 117, 48];
        assert_eq!(encode_claim(&claim()), golden(1, &day_and_half_a_minute));
        let stored = Completion::Stored(Bytes::from_static(b"\0\xFFpayload"));
        assert_eq!(encode_completion(&claim(), &stored), golden(2, b"\0\xFFpayload"));
        assert_eq!(encode_completion(&claim(), &Completion::NotStored), golden(3, b""));
        assert_eq!(encode_completion(&claim(), &Completion::Unknown), golden(6, b""));
        let beside = Completed::beside(&claim(), 65_537).to_redis_args().concat();
        assert_eq!(beside, golden(5, &[0, 0, 0, 0, 0, 1, 0, 1]));
    }

    #[test]
    fn every_value_comes_back() {
        assert_eq!(
            decode(&encode_claim(&claim()).into()).expect("a record"),
            Stored::Claimed(claim())
        );
        for completion in [
            Completion::Stored(Bytes::new()),
            Completion::Stored(Bytes::from_static(b"x")),
            Completion::NotStored,
            Completion::Unknown,
        ] {
            let expected = Stored::Completed {
                fingerprint: claim().fingerprint,
                completion: completion.clone(),
            };
            assert_eq!(
                decode(&encode_completion(&claim(), &completion).into()).expect("a record"),
                expected
            );
        }
        let beside = Completed::beside(&claim(), 7).to_redis_args().concat();
        let expected = Stored::CompletedBeside {
            fingerprint: claim().fingerprint,
            token: claim().token,
            len: 7,
        };
        assert_eq!(decode(&beside.into()).expect("a record"), expected);
    }

    #[test]
    fn whatever_is_not_a_record_is_unreadable() {
        let whole = encode_claim(&claim());
        let mut wrong = vec![
            b"".to_vec(),
            b"OK".to_vec(),
            golden(0, b""),
            golden(3, b"x"),
            golden(4, b""),
            golden(5, b""),
            golden(5, &[0; 9]),
            golden(6, b"x"),
            golden(7, b""),
            with_owner_len(6),
            with_owner_len(33),
            with_owner_len(255),
        ];
        wrong.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
        wrong.push([whole.as_slice(), b"x"].concat());
        // Of a layout that was never released, and of a later one.
        wrong.extend([0, 1, 3].map(|layout| [&[layout], &whole[1..]].concat()));
        let mut not_text = whole.clone();
        not_text[64] = 0xFF;
        wrong.push(not_text);
        for bytes in wrong {
            let error = decode(&bytes.clone().into()).expect_err("not a record");
            assert_eq!(error.kind(), BackendErrorKind::Unreadable, "{bytes:?}");
        }
    }

    prop_compose! {
        fn any_claim()(
            token: [u8; Token::LEN],
            attempt: u32,
            fingerprint: [u8; Fingerprint::LEN - 1],
            scheme: u8,
            ttl: u64,
            lease: u64,
            began_at: u64,
            owner in "[a-zé:0-9]{0,16}",
        ) -> Claim {
            Claim {
                token: Token::from_bytes(token),
                attempt,
                fingerprint: Fingerprint::new(scheme, fingerprint),
                lease: Duration::from_millis(lease),
                ttl: Duration::from_millis(ttl),
                began_at: time_from_millis(began_at),
                owner: Owner::new(&owner),
            }
        }
    }

    fn any_completion() -> impl Strategy<Value = Completion> {
        let stored = vec(any::<u8>(), 0..200).prop_map(|payload| Completion::Stored(payload.into()));
        prop_oneof![stored, Just(Completion::NotStored), Just(Completion::Unknown)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_written_is_read_back(claim in any_claim(), completion in any_completion()) {
            let claimed = decode(&encode_claim(&claim).into()).expect("a record");
            prop_assert_eq!(claimed, Stored::Claimed(claim.clone()));
            let completed = decode(&encode_completion(&claim, &completion).into()).expect("a record");
            prop_assert_eq!(completed, Stored::Completed { fingerprint: claim.fingerprint, completion });
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes.into());
        }

        #[test]
        fn no_change_to_a_value_makes_decoding_panic(
            claim in any_claim(),
            completion in prop::option::of(any_completion()),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            len: prop::sample::Index,
        ) {
            let mut value = completion.map_or_else(|| encode_claim(&claim), |known| encode_completion(&claim, &known));
            for (at, byte) in changes {
                *at.get_mut(&mut value) = byte;
            }
            value.truncate(len.index(value.len() + 1));
            let _ = decode(&value.into());
        }
    }
}
