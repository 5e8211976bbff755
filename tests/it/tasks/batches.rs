//! Batches: the verdicts of each case, in the order of the messages.

use std::collections::BTreeMap;
use std::sync::Mutex;

use idem_axum::BackendErrorKind;
use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
use idem_task::Batch;

use super::*;

const ACKNOWLEDGE: Verdict = Verdict::Acknowledge;
const REDELIVER: Verdict = Verdict::REDELIVER;

/// A message with its group, and what becomes of it.
#[derive(Clone, Copy)]
struct Message {
    id: u32,
    group: &'static str,
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Well,
    InAnError,
    SetAside,
}

fn message(id: u32, group: &'static str, ends: Ends) -> Message {
    Message { id, group, ends }
}

/// What was begun, by group, in the order of its beginning.
type Begun = Arc<Mutex<BTreeMap<&'static str, Vec<u32>>>>;

async fn work(engine: Engine, begun: Begun, message: Message) -> Result<u32, ShipError> {
    let task = engine
        .task("ship")
        .global()
        .key(&message.id)
        .ttl(DAY)
        .wait(Duration::from_secs(10));
    task.run(move |_| async move {
        begun
            .lock()
            .expect("no panic")
            .entry(message.group)
            .or_default()
            .push(message.id);
        match message.ends {
            Ends::Well => Ok(message.id),
            Ends::InAnError => Err(ShipError::Carrier),
            Ends::SetAside => Err(ShipError::NoSuchAddress),
        }
    })
    .await
}

#[tokio::test]
async fn each_message_has_a_verdict_in_the_place_of_the_message() {
    use Ends::{InAnError, SetAside, Well};
    let table: [(&str, Vec<Message>, Vec<Verdict>); 4] = [
        ("none", vec![], vec![]),
        (
            "all succeed",
            (1..=40).map(|id| message(id, "a", Well)).collect(),
            vec![ACKNOWLEDGE; 40],
        ),
        (
            "some fail",
            vec![
                message(1, "a", Well),
                message(2, "a", InAnError),
                message(3, "a", SetAside),
                message(4, "a", Well),
            ],
            vec![ACKNOWLEDGE, REDELIVER, Verdict::SetAside, ACKNOWLEDGE],
        ),
        (
            "a duplicate inside",
            vec![message(1, "a", Well), message(1, "a", Well), message(2, "a", Well)],
            vec![ACKNOWLEDGE; 3],
        ),
    ];
    for (case, messages, expected) in table {
        let (engine, begun) = (Engine::new(MemoryBackend::new()), Begun::default());
        let verdicts = Batch::of(messages)
            .run(|message| work(engine.clone(), begun.clone(), message))
            .await;
        assert_eq!(verdicts, expected, "{case}");
        let mut ran = begun.lock().expect("no panic").remove("a").unwrap_or_default();
        let all = ran.len();
        ran.sort_unstable();
        ran.dedup();
        assert_eq!(ran.len(), all, "{case}: one has run twice");
    }
}

#[tokio::test]
async fn a_group_is_in_order_and_stops_at_its_first_failure() {
    use Ends::{InAnError, SetAside, Well};
    let messages = [
        message(1, "a", Well),
        message(2, "b", SetAside),
        message(3, "a", InAnError),
        message(4, "c", Well),
        message(5, "b", Well),
        message(6, "a", Well),
        message(7, "c", Well),
    ];
    let (engine, begun) = (Engine::new(MemoryBackend::new()), Begun::default());
    for at_once in [1, 2, 8] {
        begun.lock().expect("no panic").clear();
        let batch = Batch::of(messages)
            .at_once(at_once)
            .in_order_of(|message| message.group);
        let verdicts = batch.run(|message| work(engine.clone(), begun.clone(), message)).await;
        assert_eq!(
            verdicts,
            [
                ACKNOWLEDGE,
                Verdict::SetAside,
                REDELIVER,
                ACKNOWLEDGE,
                REDELIVER,
                REDELIVER,
                ACKNOWLEDGE
            ],
            "{at_once} at once"
        );
        let begun = begun.lock().expect("no panic").clone();
        match at_once {
            1 => assert_eq!(
                begun,
                BTreeMap::from([("a", vec![1, 3]), ("b", vec![2]), ("c", vec![4, 7])])
            ),
            // Delivered again, only what was not done runs.
            _ => assert_eq!(begun, BTreeMap::from([("a", vec![3])])),
        }
    }
}

#[tokio::test]
async fn no_more_messages_run_at_once_than_are_allowed() {
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let verdicts = Batch::of(0..50).at_once(4).run(|_| {
        let (running, most) = (running.clone(), most.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Refused>(())
        }
    });
    assert_eq!(verdicts.await, [ACKNOWLEDGE; 50]);
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_outage_half_way_is_redelivered_and_loses_nothing() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    let (engine, begun) = (Engine::new(backend.clone()), Begun::default());
    let messages: Vec<_> = (1..=6).map(|id| message(id, "a", Ends::Well)).collect();
    let run = async || {
        let batch = Batch::of(messages.clone())
            .at_once(1)
            .in_order_of(|message| message.group);
        batch
            .run(|message| {
                if message.id == 4 {
                    backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
                }
                work(engine.clone(), begun.clone(), message)
            })
            .await
    };
    let verdicts = run().await;
    assert_eq!(verdicts[..3], [ACKNOWLEDGE; 3]);
    assert!(
        matches!(verdicts[3], Verdict::Redeliver(after) if !after.is_zero()),
        "{verdicts:?}"
    );
    assert_eq!(verdicts[4..], [REDELIVER; 2], "not begun");
    backend.recover();
    let rest = Batch::of(messages.clone()).at_once(2);
    let verdicts = rest.run(|message| work(engine.clone(), begun.clone(), message)).await;
    assert_eq!(verdicts, [ACKNOWLEDGE; 6]);
    let mut ran = begun.lock().expect("no panic").remove("a").unwrap_or_default();
    ran.sort_unstable();
    assert_eq!(ran, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn after_a_revocation_nothing_begins_and_what_has_begun_ends() {
    let (revoked, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let until = revoked.clone();
    let begun = Arc::new(AtomicU32::new(0));
    let batch = Batch::of(1..=5).at_once(2).until(async move { until.notified().await });
    let running = batch.run(|number| {
        let (gate, begun) = (gate.clone(), begun.clone());
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            Ok::<_, Refused>(number)
        }
    });
    let revoking = async {
        while begun.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        revoked.notify_one();
        tokio::task::yield_now().await;
        gate.notify_waiters();
    };
    let (verdicts, ()) = futures_util::future::join(running, revoking).await;
    assert_eq!(verdicts, [ACKNOWLEDGE, ACKNOWLEDGE, REDELIVER, REDELIVER, REDELIVER]);
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_batch_that_is_revoked_before_it_runs_begins_nothing() {
    let begun = AtomicU32::new(0);
    for group in [0, 1] {
        let batch = Batch::of(1..=3).in_order_of(|number| number * group);
        let verdicts = batch.until(async {}).run(|number| {
            begun.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, Refused>(number) }
        });
        assert_eq!(verdicts.await, [REDELIVER; 3]);
    }
    assert_eq!(begun.load(Ordering::SeqCst), 0);
}

/// The broker delivers all of it again, to another consumer.
#[tokio::test]
async fn of_a_dropped_batch_what_has_begun_ends_and_nothing_else_begins() {
    let (engine, begun, gate) = (
        Engine::new(MemoryBackend::new()),
        Begun::default(),
        Arc::new(Notify::new()),
    );
    let messages: Vec<_> = (1..=6)
        .map(|id| message(id, if id % 2 == 0 { "a" } else { "b" }, Ends::Well))
        .collect();
    let mut batch = Box::pin({
        let batch = Batch::of(messages.clone())
            .at_once(2)
            .in_order_of(|message| message.group);
        let (engine, begun, gate) = (engine.clone(), begun.clone(), gate.clone());
        batch.run(move |message| {
            let (begun, gate) = (begun.clone(), gate.clone());
            let task = engine.task("ship").global().key(&message.id).ttl(DAY);
            task.run(move |_| async move {
                begun
                    .lock()
                    .expect("no panic")
                    .entry(message.group)
                    .or_default()
                    .push(message.id);
                gate.notified().await;
                Ok::<_, ShipError>(message.id)
            })
        })
    });
    let both = async {
        while begun.lock().expect("no panic").len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut batch => unreachable!("the gate is closed"),
        () = both => {}
    }
    drop(batch);
    gate.notify_waiters();
    in_time(engine.drain()).await;
    assert_eq!(
        *begun.lock().expect("no panic"),
        BTreeMap::from([("a", vec![2]), ("b", vec![1])])
    );
    // The other consumer gets the results of the two, and runs the rest.
    begun.lock().expect("no panic").clear();
    let again = Batch::of(messages).in_order_of(|message| message.group);
    let verdicts = again.run(|message| work(engine.clone(), begun.clone(), message)).await;
    assert_eq!(verdicts, [ACKNOWLEDGE; 6]);
    assert_eq!(
        *begun.lock().expect("no panic"),
        BTreeMap::from([("a", vec![4, 6]), ("b", vec![3, 5])])
    );
}
