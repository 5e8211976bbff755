//! What the Redis user may do, tried on one server.
//!
//! Owns the commands that are tried, and the findings about those that the server refuses. They read and write a key that belongs to no
//! record, and expires after a second. A server checks the user's permissions before anything else, so whatever else a command is refused
//! for, the user may call it. Does not own the list of permissions for people: the documentation of the crate.

use std::collections::BTreeSet;

use idem_core::BackendError;
use idem_core::inspect::Finding;
use redis::{Cmd, Value};

use super::super::nodes::Node;
use super::super::scripts;
use crate::backend::RedisBackend;

const CHECK: &str = "permissions";

/// Who needs a command.
#[derive(Clone, Copy, PartialEq, Eq)]
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
    commands: BTreeSet<String>,
    keys: bool,
    channels: bool,
}

impl Denied {
    fn is_empty(&self) -> bool {
        self.commands.is_empty() && !self.keys && !self.channels
    }

    /// Adds a refused command, by what the server says about the refusal.
    fn add(&mut self, name: &str, details: &str) {
        if details.contains("channel") {
            self.channels = true;
        } else if details.contains(" key") {
            self.keys = true;
        } else {
            self.commands.insert(name.to_owned());
        }
    }

    fn listed(&self, prefix: &str) -> String {
        let mut parts = Vec::new();
        if !self.commands.is_empty() {
            let commands: Vec<_> = self.commands.iter().map(|name| format!("+{name}")).collect();
            parts.push(commands.join(" "));
        }
        if self.keys {
            parts.push(format!("~{prefix}:*"));
        }
        if self.channels {
            parts.push(format!("&{prefix}:*"));
        }
        parts.join(" ")
    }
}

impl RedisBackend {
    /// Tries what the backend does at a server.
    pub(super) async fn try_permissions(&self, node: &Node) -> Result<Vec<Finding>, BackendError> {
        let key = self.check_key_at(node);
        let channel = format!("{key}:c");
        let is_cluster = self.connection.is_cluster();
        let in_clusters = TRIED_IN_CLUSTERS.iter().filter(|_| is_cluster);
        let tried: Vec<_> = TRIED.iter().chain(in_clusters).collect();
        let mut commands: Vec<Cmd> = tried.iter().map(|(_, words)| command(words, &key, &channel)).collect();
        commands.push(scripts::BEGINNING.load());
        let what = "trying the user's permissions";
        let answers = self.connection.pipeline(what, node.place, None, &commands).await?;
        let writes = answers.first().map(writes);
        let whose = tried.iter().map(|(whose, words)| (*whose, name_of(words)));
        let whose = whose.chain([(For::Claims, "script|load".to_owned())]);
        let mut denied = [
            (For::Claims, Denied::default()),
            (For::Steps, Denied::default()),
            (For::Operators, Denied::default()),
        ];
        let mut deny = |whose: For, name: &str, details: &str| {
            for (_, denied) in denied.iter_mut().filter(|(known, _)| *known == whose) {
                denied.add(name, details);
            }
        };
        for ((whose, name), answer) in whose.zip(&answers) {
            if let Value::ServerError(error) = answer
                && error.code() == "NOPERM"
            {
                deny(whose, &name, error.details().unwrap_or_default());
            }
        }
        let subscribe = if is_cluster { "ssubscribe" } else { "subscribe" };
        if let Err(error) = self.connection.changed(channel).await
            && let Some(details) = details_of_denial(&error)
        {
            deny(For::Claims, subscribe, &details);
        }
        let mut findings: Vec<_> = writes.into_iter().collect();
        findings.extend(denied.iter().filter_map(|(whose, denied)| self.denied(*whose, denied)));
        if findings.iter().all(|finding| finding.check != CHECK) {
            let text = "the user may call every command that handlers, steps and operators need";
            findings.push(Finding::good(CHECK, text));
        }
        Ok(findings)
    }

    /// A key of the check in a slot of `node`.
    fn check_key_at(&self, node: &Node) -> String {
        let key = self.check_key();
        if node.place.is_none() {
            return key;
        }
        let keys = (0..).map(|number: u32| format!("{key}:{{{number}}}"));
        keys.into_iter().find(|key| node.has_slot_of(key)).unwrap_or(key)
    }

    fn denied(&self, whose: For, denied: &Denied) -> Option<Finding> {
        if denied.is_empty() {
            return None;
        }
        let listed = denied.listed(self.prefix());
        let consequence = match whose {
            For::Claims => "requests are refused or wait too long",
            For::Steps => "handlers and tasks with durable steps fail",
            For::Operators => "some commands of an operator fail",
        };
        let text = format!("the user lacks {listed}; {consequence}");
        Some(if whose == For::Claims {
            Finding::failing(CHECK, text)
        } else {
            Finding::warning(CHECK, text)
        })
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
