//! Whatever a stored value is made of, it is a record or unreadable; and a record is stored as it was read.
#![no_main]

use idem_redis::__fuzz::read_and_write;
use libfuzzer_sys::fuzz_target;

/// Where token and attempt are.
const OWNER: std::ops::Range<usize> = 2..22;

fuzz_target!(|value: &[u8]| {
    let Some(written) = read_and_write(value) else { return };
    let owned_by_nobody = |bytes: &[u8]| [&bytes[..OWNER.start], &bytes[OWNER.end..]].concat();
    assert_eq!(owned_by_nobody(&written), owned_by_nobody(value));
    assert_eq!(read_and_write(&written).as_deref(), Some(&written[..]));
});
