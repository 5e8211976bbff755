//! A stream that is consumed by processes which are killed while they work, with the records in Redis. The [demo](crate::demo) is the
//! same with the records in SQLite.

use std::time::Duration;

use fulfilment::demo::CARRIER_ANSWERS_AFTER;
use fulfilment::siege::Siege;
use fulfilment::stage::Stage;
use idem_tests::RedisServer;

use crate::scene::program;

#[tokio::test]
async fn with_redis_each_order_ships_once_whenever_a_consumer_is_killed() {
    let redis = RedisServer::start().await;
    let stage = Stage::start(program(), Some(redis.url()), CARRIER_ANSWERS_AFTER).await;
    let stage = stage.expect("a stage");
    let siege = Siege::new(100, Duration::from_secs(4));

    let figures = siege.run(&stage).await.expect("the stream is consumed");

    println!("{figures}");
    assert_eq!(figures.faults(), [""; 0], "{figures}");
    assert!(
        figures.kills > 0 && figures.cut_off() > 0,
        "nobody was killed at work: {figures}"
    );
    assert!(figures.lost_acks() > 0, "no acknowledgement was lost: {figures}");
}
