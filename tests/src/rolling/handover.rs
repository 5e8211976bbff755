//! The cases in which one version goes on with what the other has begun.

use super::cases::{ROUTE, all_by, assert_paid, by, lapse};
use super::scene::{Scene, begin, pay};

/// How many clients pay at an old process while a new one migrates.
const CLIENTS: usize = 4;

pub(super) async fn migrations(scene: &Scene<'_>) {
    let old = scene.start_old();
    let before = pay(&old, ROUTE, "before").send().await;
    assert_paid(&before);
    let capture = scene.provider.hold_next("capture", "during");
    let during = begin(pay(&old, ROUTE, "during"));
    capture.reached().await;
    assert_ne!(scene.has_tables_of_steps().await, Some(true), "old has migrated");

    let paying: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let client_of_old = old.client.clone();
            tokio::spawn(async move {
                let mut paid = 0;
                loop {
                    let reference = format!("client-{client}-{paid}");
                    let payment = super::scene::pay_by(&client_of_old, ROUTE, &reference, 0);
                    assert_paid(&payment.send().await);
                    paid += 1;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let new = scene.start_new();
    assert_ne!(scene.has_tables_of_steps().await, Some(false), "new has not migrated");
    for client in paying {
        client.abort();
        // Aborted or, if a payment was not made, ended by its check.
        assert!(
            client.await.is_err_and(|end| end.is_cancelled()),
            "a payment was not made"
        );
    }

    capture.open();
    let during = during.await.expect("no panic").expect("it lives");
    assert_paid(&during);
    let after = pay(&old, ROUTE, "after").send().await;
    assert_paid(&after);
    for (reference, paid) in [("before", before), ("during", during), ("after", after)] {
        for process in [&old, &new] {
            pay(process, ROUTE, reference).send().await.assert_replays(&paid);
        }
        assert_eq!(scene.provider.acts(reference), all_by("old"));
    }
}

pub(super) async fn begun_by_old(scene: &Scene<'_>) {
    let mut first = scene.start_old();
    let (old, new) = scene.deploy();
    let capture = scene.provider.hold_next("capture", "begun");
    begin(pay(&first, ROUTE, "begun"));
    capture.reached().await;
    let early = pay(&new, ROUTE, "begun").send().await;
    assert_eq!(early.problem(), "in-flight", "{early:?}");
    first.kill();
    lapse().await;
    let paid = pay(&new, ROUTE, "begun").send().await;
    assert_paid(&paid);
    assert_eq!(
        scene.provider.acts("begun"),
        [all_by("old"), all_by("new")].concat(),
        "no step of old is recorded"
    );
    pay(&old, ROUTE, "begun").send().await.assert_replays(&paid);
}

pub(super) async fn begun_by_new(scene: &Scene<'_>) {
    let (old, mut first) = scene.deploy();
    let new = scene.start_new();
    let start = scene.provider.hold_next("begin", "begun");
    begin(pay(&first, ROUTE, "begun"));
    start.reached().await;
    let early = pay(&old, ROUTE, "begun").send().await;
    assert_eq!(early.problem(), "in-flight", "{early:?}");
    first.kill();
    lapse().await;
    let paid = pay(&old, ROUTE, "begun").send().await;
    assert_paid(&paid);
    let acts = [by("new", &["begin"]), all_by("old")].concat();
    assert_eq!(scene.provider.acts("begun"), acts);
    pay(&new, ROUTE, "begun").send().await.assert_replays(&paid);
}

pub(super) async fn late_owner(scene: &Scene<'_>) {
    let frozen = scene.start_old();
    let (old, new) = scene.deploy();
    let of_old = scene.provider.hold_next("capture", "late");
    let late = begin(pay(&frozen, ROUTE, "late"));
    of_old.reached().await;
    frozen.freeze();
    lapse().await;
    let of_new = scene.provider.hold_next("capture", "late");
    let first = begin(pay(&new, ROUTE, "late"));
    of_new.reached().await;
    of_old.open();
    frozen.thaw();
    let late = late.await.expect("no panic").expect("it lives");
    assert!(late.says_not_stored(), "{late:?}");
    of_new.open();
    let paid = first.await.expect("no panic").expect("it lives");
    assert_paid(&paid);
    for process in [&old, &frozen, &new] {
        pay(process, ROUTE, "late").send().await.assert_replays(&paid);
    }
    assert_eq!(scene.provider.acts("late"), [all_by("old"), all_by("new")].concat());
}
