//! Whatever a stored payload is made of, it is a response or unreadable; and a response is stored as it was read.
#![no_main]

use idem_http::__fuzz::read_and_write;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    // Written once, it has no header that belongs to a connection any more.
    let Some(written) = read_and_write(payload) else { return };
    assert_eq!(read_and_write(&written).as_deref(), Some(&written[..]));
});
