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
fn a_delay_the_client_would_not_notice_is_refused() {
    let ended = Process::start(&["demo"], &[("SHIPPING_DELAY_MS", "500")]).ended();

    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("SHIPPING_DELAY_MS"), "{ended:#?}");
}
