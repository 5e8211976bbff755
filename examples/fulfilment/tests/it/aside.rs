//! Messages that can never succeed.

use std::time::Duration;

use fulfilment::carrier::NOWHERE;
use fulfilment::ship::Order;
use idem_tests::in_time;

use crate::scene::{CONSUMER, consume_the_rest, order, place, stage};

/// So long that no message is delivered again in this test by its lapse.
const ACK_WAIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_message_that_can_never_succeed_is_set_aside_and_blocks_nothing() {
    in_time(async {
        let stage = stage(ACK_WAIT).await;
        let broker = &stage.broker;
        broker.place(&order("o-1", NOWHERE)).await.expect("placed");
        broker.publish(b"{\n\"id\": 7}".to_vec()).await.expect("published");
        place(&stage, "o-2").await;
        let other = Order {
            item: "a valve".to_owned(),
            ..order("o-2", "1 Main Street")
        };
        broker.place(&other).await.expect("placed");
        place(&stage, "o-3").await;

        consume_the_rest(&stage, CONSUMER).await;

        let progress = broker.progress(CONSUMER).await.expect("the broker answers");
        assert_eq!(progress.deliveries, 5, "one of each message");
        assert_eq!(stage.carrier.ledger().shipments(), 2);
        let aside = broker.aside().await.expect("the broker answers");
        let reasons = [
            (1, "there is no such address"),
            (2, "it is not an order: invalid type"),
            (4, "the key was used for another message"),
        ];
        assert_eq!(aside.len(), reasons.len(), "{aside:?}");
        for ((place, reason), (expected, begins)) in aside.iter().zip(reasons) {
            assert!(*place == expected && reason.starts_with(begins), "{aside:?}");
        }

        let calls = stage.carrier.ledger().calls();
        broker.create_consumer("again", ACK_WAIT).await.expect("a consumer");
        consume_the_rest(&stage, "again").await;
        assert_eq!(stage.carrier.ledger().calls(), calls, "a replay calls nobody");
        let again = broker.aside().await.expect("the broker answers");
        assert_eq!(again, aside, "the same message is set aside once");
    })
    .await;
}
