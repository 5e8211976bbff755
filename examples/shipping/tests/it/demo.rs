//! The demo, which checks itself.

use crate::process::Process;

#[test]
fn the_demo_comes_out_as_told() {
    // Above the half second after which its client gives up, with room for a busy machine.
    let ended = Process::start(&["demo"], &[("SHIPPING_DELAY_MS", "1500")]).ended();

    assert!(ended.status.success(), "{ended:#?}");
    let verdict: Vec<&str> = ended.stdout.lines().rev().take(2).collect();
    assert_eq!(
        verdict,
        [
            "idempotent  3 orders, 3 rows: every order shipped once",
            "naive       2 orders, 4 rows: a retry ships again",
        ]
    );
    assert!(!ended.stdout.contains('\x1b'), "colours are for terminals");
}

#[test]
fn a_delay_that_a_client_would_not_notice_or_a_duplicate_would_not_wait_for_is_refused() {
    for delay in ["500", "30001"] {
        let ended = Process::start(&["demo"], &[("SHIPPING_DELAY_MS", delay)]).ended();

        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains("SHIPPING_DELAY_MS"), "{ended:#?}");
    }
}
