//! Acknowledgements that are lost, at each place where they can be.

use std::time::Duration;

use fulfilment::config::Config;
use fulfilment::journal::{End, What, cut_off};
use idem_tests::in_time;

use crate::scene::{CONSUMER, consume_the_rest, has, one_at_a_time, place, stage};

const ACK_WAIT: Duration = Duration::from_secs(1);

const SHIPPED: What = What::Ended(End::Acknowledge);

#[tokio::test]
async fn a_lost_acknowledgement_leads_to_a_replay_and_to_no_second_shipment() {
    in_time(async {
        let stage = stage(ACK_WAIT).await;
        place(&stage, "o-1").await;
        let forgetful = Config {
            lose_acks: 1,
            ..one_at_a_time(&stage)
        };
        let worker = stage.worker(&forgetful).expect("it starts");
        stage.journal.until(|entries| has(entries, SHIPPED)).await;
        worker.kill().await.expect("it runs");

        consume_the_rest(&stage, CONSUMER).await;

        let entries = stage.journal.of(CONSUMER);
        let ends = entries
            .iter()
            .filter(|entry| matches!(entry.event.what, What::Ended(_)));
        let ends: Vec<_> = ends.map(|entry| entry.event.what).collect();
        assert!(ends.len() >= 2 && ends.iter().all(|end| *end == SHIPPED), "{entries:?}");
        assert_eq!(
            cut_off(&entries, |what| what == SHIPPED, |what| what == What::Told),
            ends.len() - 1
        );
        let ledger = stage.carrier.ledger();
        assert_eq!((ledger.calls(), ledger.shipments()), (1, 1), "{ledger:?}");
    })
    .await;
}

#[tokio::test]
async fn a_process_that_dies_between_the_shipment_and_its_record_ships_under_the_same_key_again() {
    in_time(async {
        let stage = stage(ACK_WAIT).await;
        place(&stage, "o-1").await;
        stage.carrier.hold_answers(true);
        let worker = stage.worker(&one_at_a_time(&stage)).expect("it starts");
        stage.carrier.called(1).await;
        worker.kill().await.expect("it runs");
        stage.carrier.hold_answers(false);

        consume_the_rest(&stage, CONSUMER).await;

        let ledger = stage.carrier.ledger();
        assert_eq!((ledger.calls(), ledger.repeated_calls()), (2, 1), "{ledger:?}");
        assert_eq!(ledger.shipments(), 1, "{ledger:?}");
    })
    .await;
}

#[tokio::test]
async fn an_ack_wait_that_ends_before_the_first_renewal_is_refused() {
    in_time(async {
        let stage = stage(ACK_WAIT).await;
        let lease = 3 * ACK_WAIT;
        let config = Config {
            lease,
            ..one_at_a_time(&stage)
        };

        let mut worker = stage.worker(&config).expect("it starts");

        let failed = worker.ended().await.expect("it is a child");
        assert!(failed.to_string().contains("exit status: 1"), "{failed}");
    })
    .await;
}
