//! The binary form of a record, version 1.
//!
//! Owns the layout; golden bytes below freeze it. All integers are big-endian.
//!
//! | bytes | claimed | completed | completed, with a large payload |
//! |---|---|---|---|
//! | 0 | version, 1 | version, 1 | version, 1 |
//! | 1 | state: 1 | state: 2 with a payload, 3 without | state: 5 |
//! | 2..18 | token | token | token, which the payload's key ends with |
//! | 18..22 | attempt | attempt | attempt |
//! | 22..55 | fingerprint | fingerprint | fingerprint |
//! | 55.. | ttl, then lease, each in milliseconds as u64 | payload | length of the payload as u64 |

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Fingerprint, Token};
use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};

const VERSION: u8 = 1;
const CLAIMED: u8 = 1;
const STORED: u8 = 2;
const NOT_STORED: u8 = 3;
const STORED_BESIDE: u8 = 5;

const HEADER_LEN: usize = 2 + Token::LEN + 4 + Fingerprint::LEN;

/// Length of [`encode_claim`].
pub(crate) const CLAIM_LEN: usize = HEADER_LEN + 16;

// The scripts read 72 bytes: one more than a claim has.
const _: () = assert!(CLAIM_LEN == 71);

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

pub(crate) fn encode_claim(claim: &Claim) -> [u8; CLAIM_LEN] {
    let mut bytes = [0; CLAIM_LEN];
    let durations = [millis(claim.ttl), millis(claim.lease)].map(u64::to_be_bytes);
    put(&mut bytes, &[&header(CLAIMED, claim), durations.as_flattened()]);
    bytes
}

/// A completed record as an argument of a command. The payload is not copied before the command is written.
pub(crate) struct Completed {
    header: [u8; HEADER_LEN],
    payload: Bytes,
}

impl Completed {
    pub(crate) fn new(claim: &Claim, completion: &Completion) -> Self {
        let (state, payload) = match completion {
            Completion::Stored(payload) => (STORED, payload.clone()),
            Completion::NotStored => (NOT_STORED, Bytes::new()),
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

fn header(state: u8, claim: &Claim) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    put(
        &mut bytes,
        &[
            &[VERSION, state],
            &claim.token.to_bytes(),
            &claim.attempt.to_be_bytes(),
            &claim.fingerprint.to_bytes(),
        ],
    );
    bytes
}

/// Fills `bytes` with `parts`, which have the same length in total.
fn put(mut bytes: &mut [u8], parts: &[&[u8]]) {
    for part in parts {
        // Writing to a slice that is long enough cannot fail.
        let _ = bytes.write_all(part);
    }
}

/// Decodes a stored value. A value that is not a whole record of this version is an error, never absent (IDEM-15).
pub(crate) fn decode(bytes: &Bytes) -> Result<Stored, BackendError> {
    decode_parts(bytes).map_err(|what| BackendError::new(BackendErrorKind::Unreadable, what))
}

fn decode_parts(bytes: &Bytes) -> Result<Stored, &'static str> {
    let mut rest = bytes.as_ref();
    let [version] = take(&mut rest)?;
    if version != VERSION {
        return Err("it is of another version, or not a record of idem");
    }
    let [state] = take(&mut rest)?;
    let token = Token::from_bytes(take(&mut rest)?);
    let attempt = u32::from_be_bytes(take(&mut rest)?);
    let fingerprint = Fingerprint::from_bytes(take(&mut rest)?);
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
        let head: &[&[u8]] = &[&[1, state], b"0123456789abcdef", &[0, 0, 0, 2, 1], &[0xEE; 32], rest];
        head.concat()
    }

    #[test]
    fn values_of_version_1_are_frozen() {
        let day_and_half_a_minute = [0, 0, 0, 0, 5, 38, 92, 0, 0, 0, 0, 0, 0, 0, 117, 48];
        assert_eq!(encode_claim(&claim()), golden(1, &day_and_half_a_minute));
        let stored = Completion::Stored(Bytes::from_static(b"\0\xFFpayload"));
        assert_eq!(encode_completion(&claim(), &stored), golden(2, b"\0\xFFpayload"));
        assert_eq!(encode_completion(&claim(), &Completion::NotStored), golden(3, b""));
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
        ];
        wrong.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
        wrong.push([whole.as_slice(), b"x"].concat());
        wrong.push([&[2], &whole[1..]].concat());
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
        ) -> Claim {
            Claim {
                token: Token::from_bytes(token),
                attempt,
                fingerprint: Fingerprint::new(scheme, fingerprint),
                lease: Duration::from_millis(lease),
                ttl: Duration::from_millis(ttl),
            }
        }
    }

    fn any_completion() -> impl Strategy<Value = Completion> {
        let stored = vec(any::<u8>(), 0..200).prop_map(|payload| Completion::Stored(payload.into()));
        prop_oneof![stored, Just(Completion::NotStored)]
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
