//! Whatever a stored value is made of, it is a record or unreadable; and a record is stored as it was read.
#![no_main]

use idem_redis::__fuzz::read_and_write;
use libfuzzer_sys::fuzz_target;

/// Where the length of the owner is, which ends the part that all states have.
const OWNER_LEN: usize = 63;

/// Layout, state, fingerprint, and what follows the owner.
fn without_claim(value: &[u8]) -> Vec<u8> {
    let owner_end = OWNER_LEN + 1 + usize::from(value[OWNER_LEN]);
    [&value[..2], &value[22..55], &value[owner_end..]].concat()
}

fuzz_target!(|value: &[u8]| {
    let Some(written) = read_and_write(value) else { return };
    assert_eq!(without_claim(&written), without_claim(value));
    assert_eq!(read_and_write(&written).as_deref(), Some(&written[..]));
});
