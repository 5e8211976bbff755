//! What the Redis user may do, tried on one server.
//!
//! Owns the commands that are tried, and the findings about those that the server refuses. They read and write a key that belongs to no
//! record, and expires after a second. A server checks the user's permissions before anything else, so whatever else a command is refused
//! for, the user may call it. Does not own the list of permissions for people: the documentation of the crate.

use std::collections::{BTreeMap, BTreeSet};

use idem_core::BackendError;
use idem_core::inspect::Finding;
use redis::{Cmd, Value};

use super::super::nodes::Node;
use super::super::scripts;
use crate::backend::RedisBackend;

const CHECK: &str = "permissions";

/// Who needs a command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    /// Each claim, completion or waiting request.
    Claims,
    /// A handler or task with durable steps.
    Steps,
    /// An operator.
    Operators,
}

/// Commands on the key of the check, by their words. `KEY` and `CHANNEL` stand for the key and its channel. In `HSET` and the like the
/// key is a string, so nothing is changed.
const TRIED: [(For, &str); 13] = [
    // The first one is looked at by itself: it tells whether the server takes writes.
    (For::Claims, "SET KEY - PX 1000"),
    (For::Claims, "GET KEY"),
    (For::Claims, "GETRANGE KEY 0 0"),
    (For::Claims, "PTTL KEY"),
    (For::Claims, "PEXPIRE KEY 1000"),
    (For::Steps, "HSET KEY - -"),
    (For::Steps, "HGETALL KEY"),
    (For::Operators, "HDEL KEY -"),
    (For::Operators, "STRLEN KEY"),
    (For::Operators, "SCAN 0 COUNT 1"),
    (For::Claims, "DEL KEY"),
    (For::Claims, "EVALSHA 0000000000000000000000000000000000000000 1 KEY"),
    (For::Claims, "PUBLISH CHANNEL -"),
];

/// In a cluster, as well. What follows `ASKING` in the pipeline is about no key.
const TRIED_IN_CLUSTERS: [(For, &str); 3] = [
    (For::Claims, "SPUBLISH CHANNEL -"),
    (For::Claims, "ASKING"),
    (For::Claims, "PING"),
];

/// What a user may not do.
#[derive(Default)]
struct Denied {
    commands: BTreeMap<For, BTreeSet<String>>,
    keys: bool,
    channels: bool,
}

impl Denied {
    /// Adds a refused command, by what the server says about the refusal.
    fn add(&mut self, whose: For, name: &str, details: &str) {
        if details.contains("channel") {
            self.channels = true;
        } else if details.contains(" key") {
            self.keys = true;
        } else {
            self.commands.entry(whose).or_default().insert(format!("+{name}"));
        }
    }

    fn finding(mut self, prefix: &str) -> Finding {
        let mut of_claims = Vec::from_iter(self.commands.remove(&For::Claims).unwrap_or_default());
        if self.keys {
            of_claims.push(format!("~{prefix}:*"));
        }
        if self.channels {
            of_claims.push(format!("&{prefix}:*"));
        }
        let is_failing = !of_claims.is_empty();
        let mut lacking = Vec::new();
        if is_failing {
            lacking.push(format!(
                "{}, so requests are refused or wait too long",
                of_claims.join(" ")
            ));
        }
        for (whose, names) in self.commands {
            let names = Vec::from_iter(names).join(" ");
            lacking.push(match whose {
                For::Operators => format!("{names}, so some commands of an operator fail"),
                For::Claims | For::Steps => format!("{names}, so handlers and tasks with durable steps fail"),
            });
        }
        if lacking.is_empty() {
            let text = "the user may call every command that handlers, steps and operators need";
            return Finding::good(CHECK, text);
        }
        let text = format!("the user lacks {}", lacking.join("; "));
        if is_failing {
            Finding::failing(CHECK, text)
        } else {
            Finding::warning(CHECK, text)
        }
    }
}

impl RedisBackend {
    /// Tries what the backend does at a server.
    pub(super) async fn try_permissions(&self, node: &Node) -> Result<[Finding; 2], BackendError> {
        let key = &node.check_key;
        let channel = format!("{key}:c");
        let is_cluster = self.connection.is_cluster();
        let in_clusters = TRIED_IN_CLUSTERS.iter().filter(|_| is_cluster);
        let tried: Vec<_> = TRIED.iter().chain(in_clusters).collect();
        let mut commands: Vec<Cmd> = tried.iter().map(|(_, words)| command(words, key, &channel)).collect();
        commands.push(scripts::BEGINNING.load());
        let answers = self.ask_node("trying the user's permissions", node, commands).await?;
        let writes = writes(answers.first().unwrap_or(&Value::Nil));
        let whose = tried.iter().map(|(whose, words)| (*whose, name_of(words)));
        let whose = whose.chain([(For::Claims, "script|load".to_owned())]);
        let mut denied = Denied::default();
        for ((whose, name), answer) in whose.zip(&answers) {
            if let Value::ServerError(error) = answer
                && error.code() == "NOPERM"
            {
                denied.add(whose, &name, error.details().unwrap_or_default());
            }
        }
        if let Err(error) = self.connection.changed(channel).await
            && let Some(details) = details_of_denial(&error)
        {
            let name = if is_cluster { "ssubscribe" } else { "subscribe" };
            denied.add(For::Claims, name, &details);
        }
        Ok([writes, denied.finding(self.prefix())])
    }
}

/// Whether the server takes writes, by its answer to one.
fn writes(answer: &Value) -> Finding {
    const CHECK: &str = "writes";
    match answer {
        Value::ServerError(error) if error.code() == "NOPERM" => Finding::unchecked(
            CHECK,
            "the user may not write, so whether the server takes writes is unknown",
        ),
        Value::ServerError(error) => {
            let text = format!(
                "the server refuses writes, and every claim and replay with them: {}",
                error.code()
            );
            Finding::failing(CHECK, text)
        }
        _ => Finding::good(CHECK, "the server takes writes"),
    }
}

fn command(words: &str, key: &str, channel: &str) -> Cmd {
    let mut command = Cmd::new();
    for word in words.split(' ') {
        command.arg(match word {
            "KEY" => key,
            "CHANNEL" => channel,
            word => word,
        });
    }
    command
}

fn name_of(words: &str) -> String {
    words.split(' ').next().unwrap_or_default().to_lowercase()
}

/// What the server says about a refusal for lack of a permission.
fn details_of_denial(error: &BackendError) -> Option<String> {
    let cause = std::error::Error::source(error)?.downcast_ref::<redis::RedisError>()?;
    (cause.code() == Some("NOPERM")).then(|| cause.detail().unwrap_or_default().to_owned())
}
