//! The functions that fuzz targets call: those that decode values which another program may have written.
//!
//! Owns the round trip of a stored value. Does not own the targets: `fuzz/`.

use bytes::Bytes;
use redis::ToRedisArgs as _;

use crate::record::{Completed, Stored, decode, encode_claim, encode_claim_with_steps, encode_parked};

/// Decodes a stored value and encodes it again.
#[must_use]
pub fn read_and_write(value: &[u8]) -> Option<Vec<u8>> {
    Some(match decode(&Bytes::copy_from_slice(value)).ok()? {
        Stored::Claimed(claim) if claim.has_steps => encode_claim_with_steps(&claim).to_vec(),
        Stored::Claimed(claim) => encode_claim(&claim).to_vec(),
        Stored::Parked(claim) => encode_parked(&claim).to_vec(),
        Stored::Completed { claim, completion } => Completed::new(&claim, &completion).to_redis_args().concat(),
        Stored::CompletedBeside { claim, len } => Completed::beside(&claim, len).to_redis_args().concat(),
    })
}
