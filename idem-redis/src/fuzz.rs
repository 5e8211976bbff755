//! What fuzz targets reach of the inside: what reads values that somebody else may have written.

use std::time::Duration;

use bytes::Bytes;
use idem_core::{Claim, Token};

use redis::ToRedisArgs as _;

use crate::record::{Completed, Stored, decode, encode_claim};

/// A stored value as it is written after it was read. Of a completed one, reading leaves out whose it was.
#[must_use]
pub fn read_and_write(value: &[u8]) -> Option<Vec<u8>> {
    Some(match decode(&Bytes::copy_from_slice(value)).ok()? {
        Stored::Claimed(claim) => encode_claim(&claim).to_vec(),
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
            };
            Completed::beside(&claim, len).to_redis_args().concat()
        }
    })
}
