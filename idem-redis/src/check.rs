//! The settings of a server that make claims fail or can lose records.
//!
//! Owns what is wrong with each setting, and the check after the first connection. That check warns and never fails, because a server
//! that refuses `INFO` may be configured correctly. Does not own when the check is made ([`connection`](crate::connection)), nor the other
//! findings that an operator is shown ([`inspect`](crate::inspect)).

use std::time::Duration;

use idem_core::inspect::{Finding, Health};
use redis::{FromRedisValue as _, InfoDict, Value};

use crate::connection::Connection;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Logs a warning for each finding that is not good.
pub(crate) async fn warn_about(connection: &Connection) {
    match connection.query_all(&redis::cmd("INFO"), PATIENCE).await {
        Ok(answers) => {
            for info in answers.into_iter().flat_map(each) {
                for finding in findings(&info, connection.is_cluster()) {
                    if finding.health >= Health::Warning {
                        tracing::warn!("{}", finding.text);
                    }
                }
            }
        }
        Err(error) => tracing::debug!(%error, "Redis was not checked; the user may lack +info"),
    }
}

/// One answer per server. A cluster client returns a map from address to answer.
fn each(answer: Value) -> Vec<InfoDict> {
    let answers = match answer {
        Value::Map(nodes) => nodes.into_iter().map(|(_, info)| info).collect(),
        one => vec![one],
    };
    let readable = |answer| InfoDict::from_redis_value(answer).ok();
    answers.into_iter().filter_map(readable).collect()
}

/// What is found at every start.
pub(crate) fn findings(info: &InfoDict, expects_cluster: bool) -> [Finding; 4] {
    [
        version(info),
        deployment(info, expects_cluster),
        role(info),
        eviction(info),
    ]
}

fn version(info: &InfoDict) -> Finding {
    const CHECK: &str = "version";
    let version = info.get::<String>("redis_version").unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let Some(major) = major else {
        return Finding::unchecked(CHECK, "the server does not tell its version; 7.0 or newer is needed");
    };
    if major < 7 {
        let text = format!("Redis is {version}; idempotency needs 7.0 or newer, and every claim will fail");
        return Finding::failing(CHECK, text);
    }
    // A Valkey tells besides which Redis it is like.
    let valkey = info.get::<String>("valkey_version");
    let own = valkey.map_or_else(|| format!("Redis {version}"), |valkey| format!("Valkey {valkey}"));
    Finding::good(CHECK, own)
}

fn deployment(info: &InfoDict, expects_cluster: bool) -> Finding {
    const CHECK: &str = "deployment";
    let is_node = info.get::<u8>("cluster_enabled") == Some(1);
    if is_node && !expects_cluster {
        let text =
            "Redis is a node of a cluster, and claims of other nodes' keys will fail; connect to redis+cluster://…";
        return Finding::failing(CHECK, text);
    }
    Finding::good(CHECK, if is_node { "a node of a cluster" } else { "one server" })
}

fn role(info: &InfoDict) -> Finding {
    const CHECK: &str = "role";
    match info.get::<String>("role").as_deref() {
        Some("slave") => Finding::failing(
            CHECK,
            "Redis is a replica, and every claim will fail; connect to the primary",
        ),
        Some(_) => Finding::good(CHECK, "a primary"),
        None => Finding::unchecked(CHECK, "the server does not tell whether it is a primary"),
    }
}

fn eviction(info: &InfoDict) -> Finding {
    const CHECK: &str = "eviction";
    let policy = info.get::<String>("maxmemory_policy").unwrap_or_default();
    let Some(limit) = info.get::<u64>("maxmemory") else {
        return Finding::unchecked(CHECK, "the server does not tell its maxmemory");
    };
    if limit == 0 {
        return Finding::good(CHECK, "maxmemory is not set, so no record is evicted");
    }
    if policy == "noeviction" {
        return Finding::good(CHECK, "maxmemory-policy is noeviction, so no record is evicted");
    }
    let text = format!(
        "Redis evicts records when it is full (maxmemory-policy {policy}), and an evicted record lets its request run \
         again; set maxmemory-policy noeviction"
    );
    match info.get::<u64>("evicted_keys") {
        Some(evicted @ 1..) => {
            let text = format!("{text}. It has evicted {evicted} keys since it was started");
            Finding::failing(CHECK, text)
        }
        _ => Finding::warning(CHECK, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(info: &str) -> Vec<String> {
        let findings = findings(&InfoDict::new(info), false).into_iter();
        let bad = findings.filter(|finding| finding.health >= Health::Warning);
        bad.map(|finding| finding.text).collect()
    }

    #[test]
    fn a_server_as_it_should_be_gives_no_warning() {
        assert!(found("redis_version:7.0.15\r\nrole:master\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru").is_empty());
        assert!(found("redis_version:8.2.3\r\nrole:master\r\nmaxmemory:9\r\nmaxmemory_policy:noeviction").is_empty());
        assert!(found("").is_empty());
    }

    #[test]
    fn each_finding_says_what_to_do() {
        assert!(found("redis_version:6.2.14")[0].contains("7.0 or newer"));
        assert!(found("maxmemory:100\r\nmaxmemory_policy:volatile-ttl")[0].contains("set maxmemory-policy noeviction"));
        assert!(found("role:slave")[0].contains("connect to the primary"));
        assert!(found("cluster_enabled:1")[0].contains("redis+cluster://"));
    }

    #[test]
    fn a_server_that_has_evicted_keys_is_losing_records() {
        let info = InfoDict::new("maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\nevicted_keys:3");
        let finding = eviction(&info);
        assert_eq!(finding.health, Health::Failing);
        assert!(finding.text.ends_with("It has evicted 3 keys since it was started"));
    }
}
