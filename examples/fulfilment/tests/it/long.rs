//! A shipment that takes longer than the broker waits for its acknowledgement.

use std::time::Duration;

use fulfilment::config::Config;
use fulfilment::journal::Entry;
use idem_tests::in_time;
use tokio::time::timeout;

use crate::scene::{CONSUMER, one_at_a_time, place, stage};

const ACK_WAIT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_long_shipment_is_not_delivered_again_while_it_runs() {
    in_time(async {
        let stage = stage(ACK_WAIT).await;
        place(&stage, "o-1").await;
        stage.carrier.hold_answers(true);
        let config = Config {
            at_once: 2,
            // Renewed after a third of it, which leaves two thirds.
            lease: ACK_WAIT,
            ..one_at_a_time(&stage)
        };
        let worker = stage.worker(&config).expect("it starts");
        stage.carrier.called(1).await;

        let is_again = |entries: &[Entry]| entries.iter().any(|entry| entry.event.delivery > 1);
        let again = timeout(2 * ACK_WAIT, stage.journal.until(is_again)).await;
        stage.carrier.hold_answers(false);
        let progress = stage.consumed(CONSUMER).await.expect("nothing is left");
        worker.stop().await.expect("it ends well");

        assert!(
            again.is_err(),
            "it was delivered again: {:?}",
            stage.journal.of(CONSUMER)
        );
        assert_eq!(progress.deliveries, 1);
        assert_eq!(stage.carrier.ledger().calls(), 1);
    })
    .await;
}
