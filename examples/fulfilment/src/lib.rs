//! A consumer on NATS `JetStream` that ships each order once.
//!
//! `cargo run -p fulfilment -- demo` shows it under kills, lost acknowledgements and a replay of the whole stream.
//!
//! | module | owns | does not own |
//! |---|---|---|
//! | [`ship`] | the task: one order, shipped once | where messages come from |
//! | [`consumer`] | the way from a message to the task, and from its verdict to the broker | what the task does |
//! | [`broker`] | streams, subjects and consumers | what is done with a message |
//! | [`carrier`] | the stub of the carrier, and the call to it | when it is called |
//! | [`config`] | the environment variables of a consumer process | |
//! | [`nats_server`] | a `nats-server` as a child process | what is stored in it |
//! | [`worker`] | a consumer as a child process, and its end | what it does |
//! | [`journal`] | what all consumer processes have said | what follows from it |
//! | [`stage`] | a broker, a carrier and records, started together | |
//! | [`siege`] | orders that come while processes are killed | |
//! | [`figures`] | what came of it, as numbers and as a picture | |
//! | [`demo`] | the order of events, and whether they came out as they must | |

pub mod broker;
pub mod carrier;
pub mod config;
pub mod consumer;
pub mod demo;
pub mod figures;
pub mod journal;
pub mod nats_server;
pub mod ship;
pub mod siege;
pub mod stage;
pub mod worker;
