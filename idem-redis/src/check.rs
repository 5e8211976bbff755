//! The check of a server's configuration after the first connection.
//!
//! Owns the settings that can lose records, and the warnings about them. The check warns and never fails, because a server that
//! refuses `INFO` may be configured correctly. Does not own when the check is made: [`connection`](crate::connection).

use std::time::Duration;

use redis::{FromRedisValue as _, InfoDict, Value};

use crate::connection::Connection;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Logs a warning for each finding.
pub(crate) async fn warn_about(connection: &Connection) {
    match connection.query_all(&redis::cmd("INFO"), PATIENCE).await {
        Ok(answers) => {
            for info in answers.into_iter().flat_map(each) {
                for finding in findings(&info, connection.is_cluster()) {
                    tracing::warn!("{finding}");
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

fn findings(info: &InfoDict, expects_cluster: bool) -> Vec<String> {
    let mut findings = Vec::new();
    let version = info.get::<String>("redis_version").unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 7) {
        findings.push(format!(
            "Redis is {version}; idempotency needs 7.0 or newer, and every claim will fail"
        ));
    }
    let policy = info.get::<String>("maxmemory_policy").unwrap_or_default();
    let limit = info.get::<u64>("maxmemory").unwrap_or_default();
    if limit > 0 && policy != "noeviction" {
        findings.push(format!(
            "Redis evicts records when it is full (maxmemory-policy {policy}), and an evicted record lets its request \
             run again; set maxmemory-policy noeviction"
        ));
    }
    if info.get::<String>("role").is_some_and(|role| role == "slave") {
        findings.push(String::from(
            "Redis is a replica, and every claim will fail; connect to the primary",
        ));
    }
    if !expects_cluster && info.get::<u8>("cluster_enabled") == Some(1) {
        findings.push(String::from(
            "Redis is a node of a cluster, and claims of other nodes' keys will fail; connect to redis+cluster://…",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(info: &str) -> Vec<String> {
        findings(&InfoDict::new(info), false)
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
}
