//! The functions that fuzz targets call: those that decode values which another program may have written.
//!
//! Owns the round trip of a stored value. Does not own the targets: `fuzz/`.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use idem_core::{Claim, Owner, Token};

use redis::ToRedisArgs as _;

use crate::record::{Completed, Stored, decode, encode_claim, encode_claim_with_steps, encode_parked};

/// Decodes a stored value and encodes it again. Decoding a completed record keeps nothing of its claim but the fingerprint.
#[must_use]
pub fn read_and_write(value: &[u8]) -> Option<Vec<u8>> {
    Some(match decode(&Bytes::copy_from_slice(value)).ok()? {
        Stored::Claimed(claim) if claim.has_steps => encode_claim_with_steps(&claim).to_vec(),
        Stored::Claimed(claim) => encode_claim(&claim).to_vec(),
        Stored::Parked(claim) => encode_parked(&claim).to_vec(),
        Stored::Completed {
            fingerprint,
            completion,
        } => {
            let claim = Claim {
                token: Token::from_bytes([0; Token::LEN]),
                attempt: 0,
                fingerprint,
                lease: Duration::ZERO,
                ttl: Duration::ZERO,
                began_at: SystemTime::UNIX_EPOCH,
                owner: Owner::NONE,
                has_steps: false,
            };
            Completed::new(&claim, &completion).to_redis_args().concat()
        }
        Stored::CompletedBeside {
            fingerprint,
            token,
            len,
        } => {
            let claim = Claim {
                token,
                attempt: 0,
                fingerprint,
                lease: Duration::ZERO,
                ttl: Duration::ZERO,
                began_at: SystemTime::UNIX_EPOCH,
                owner: Owner::NONE,
                has_steps: false,
            };
            Completed::beside(&claim, len).to_redis_args().concat()
        }
    })
}
