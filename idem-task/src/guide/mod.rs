//! Guides, one page each: how to build a consumer on each broker, and what it has to choose.
//!
//! | guide | shows |
//! |---|---|
//! | [`consumers`] | the task that all programs share, and what each consumer chooses: key, scope, `ttl`, lease |
//! | [`nats`] | NATS JetStream: where the program is, and what its words mean there |
//! | [`kafka`] | partitions in order, offsets after the verdict, a partition that is revoked |
//! | [`sqs`] | a Lambda function that reports batch item failures, on standard and FIFO queues |
//! | [`rabbitmq`] | acknowledgements one by one, dead letters, delivery limits |
//! | [`redis_streams`] | pending messages, and consumers that take those of dead ones |
//! | [`cron`] | a schedule that several processes share |
//!
//! Each program is whole. Those for Redis Streams, SQS and schedules are in `examples/consumers`, and its tests run them as processes.
//! Those for Kafka and RabbitMQ are in `examples/brokers`, which is a workspace of its own, because a client of Kafka takes long to
//! compile. The program for NATS is `examples/fulfilment`. A test compares the pages with the programs.

// What the pages name. Links in them are followed in rustdoc, and read as plain names everywhere else.
#[allow(unused_imports, reason = "only links use them")]
use crate::{Batch, Engine, Execution, Refused, RefusedKind, Task, TaskError, Verdict};

#[doc = include_str!("consumers.md")]
pub mod consumers {}

#[doc = include_str!("cron.md")]
pub mod cron {}

#[doc = include_str!("kafka.md")]
pub mod kafka {}

#[doc = include_str!("nats.md")]
pub mod nats {}

#[doc = include_str!("rabbitmq.md")]
pub mod rabbitmq {}

#[doc = include_str!("redis_streams.md")]
pub mod redis_streams {}

#[doc = include_str!("sqs.md")]
pub mod sqs {}
