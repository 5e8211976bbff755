//! The promise of `docs/semantics.md`, over real sockets, on every backend. Tests cite its rules.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unused_async,
    reason = "a test fails by panicking, and a handler is async"
)]

mod bad_input;
mod bodies;
mod bounds;
mod broken_backends;
mod chains;
mod claims;
mod cli;
mod client_examples;
mod cluster;
mod completions;
mod conformance;
mod contract;
mod crashes;
mod defaults;
mod diagnoses;
mod disconnects;
mod duplicates;
mod engines;
mod figures;
mod fingerprint_keys;
mod fingerprints;
mod first_programs;
mod formats;
mod forwarding;
mod generated_responses;
mod handlers;
mod in_memory;
mod incident;
mod joint;
mod lab;
mod large_bodies;
mod late_layers;
mod layered;
mod leaks;
mod leases;
mod logs;
mod markers;
mod methods;
mod mismatches;
mod observing;
mod openapi;
mod operating;
mod options;
mod outages;
mod outer_layers;
mod poolers;
mod postgres;
mod postgres_operators;
mod postgres_outages;
mod postgres_pool;
mod postgres_refusals;
mod postgres_sweeps;
mod postgres_urls;
mod postgres_waiting;
mod problem_examples;
mod raw;
mod redis;
mod redis_diagnosis;
mod redis_inspection;
mod redis_large_answers;
mod redis_large_outages;
mod redis_late_start;
mod redis_lost_steps;
mod redis_refusals;
mod redis_silent_nodes;
mod redis_steps;
mod replay_tests;
mod replays;
mod responses;
mod scripted_backends;
mod sentinels;
mod settings;
mod siege;
mod sqlite;
mod sqlite_transactions;
mod step_transactions;
mod steps;
mod steps_in_layers;
mod tasks;
mod tls;
mod traces;
mod transaction_ends;
mod transaction_outages;
mod transaction_verdicts;
mod transactions;
mod typed_routes;
mod verdicts;
mod waiting;
