//! How the servers are set up.
//!
//! Owns which checks there are, and how the findings of several servers become one list. No finding shows a credential, nor a part of a
//! record key. Does not own what is wrong with a setting: [`check`], [`facts`] and [`permissions`].

mod facts;
mod permissions;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use idem_core::inspect::{Finding, Health, Listed, Selection};
use idem_core::{BackendError, BackendErrorKind};
use redis::{FromRedisValue as _, InfoDict, Value, from_redis_value};
use tokio::time::timeout;

use self::facts::Settings;
use super::nodes::{Node, Nodes, SLOTS};
use crate::backend::RedisBackend;
use crate::check;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many records are looked at, about.
const SAMPLE: usize = 500;

/// From which difference of two clocks on a finding warns.
const CLOCKS: Duration = Duration::from_secs(1);

impl RedisBackend {
    pub(super) async fn findings(&self) -> Result<Vec<Finding>, BackendError> {
        let nodes = Nodes::of(self).await?;
        let each = join_all(nodes.list.iter().map(|node| self.findings_at(node))).await;
        let mut findings = Vec::new();
        let mut failed = None;
        for (node, found) in nodes.list.iter().zip(each) {
            match found {
                Ok(found) => findings.push((node.address.as_str(), found)),
                Err(error) => {
                    let text = format!("the server does not answer: {error}");
                    findings.push((node.address.as_str(), vec![Finding::failing("server", text)]));
                    failed = Some(error);
                }
            }
        }
        if let Some(error) = failed
            && findings
                .iter()
                .all(|(_, found)| found.iter().all(|finding| finding.check == "server"))
        {
            return Err(error);
        }
        let mut findings = merged(&findings);
        if nodes.is_cluster {
            findings.push(slots(nodes.covered));
        }
        findings.push(self.sample().await);
        Ok(findings)
    }

    async fn findings_at(&self, node: &Node) -> Result<Vec<Finding>, BackendError> {
        let asked = async {
            let mut findings = self.facts(node).await?;
            findings.extend(self.try_permissions(node).await?);
            Ok(findings)
        };
        let late = |_elapsed| Err(BackendError::new(BackendErrorKind::Timeout, "checking a server"));
        timeout(PATIENCE, asked).await.unwrap_or_else(late)
    }

    /// The findings by what a server says about itself.
    async fn facts(&self, node: &Node) -> Result<Vec<Finding>, BackendError> {
        let mut settings = redis::cmd("CONFIG");
        settings.arg("GET").arg("save").arg("appendfsync");
        let mut state = redis::cmd("CLUSTER");
        state.arg("INFO");
        let mut commands = vec![redis::cmd("INFO"), settings];
        commands.extend(self.connection.is_cluster().then_some(state));
        let asked = SystemTime::now();
        let answers = self.ask_node("asking a server about itself", node, commands).await?;
        let mut answers = answers.into_iter();
        let answered = SystemTime::now();
        let info = answers.next().unwrap_or(Value::Nil).extract_error();
        let settings: Settings = answers.next().and_then(|settings| from_redis_value(settings).ok());
        let state = answers.next().and_then(|state| InfoDict::from_redis_value(state).ok());
        let mut findings: Vec<_> = state.and_then(|state| cluster_state(&state)).into_iter().collect();
        let Some(info) = info.ok().and_then(|info| InfoDict::from_redis_value(info).ok()) else {
            let text = "the user may not call INFO, so version, role, eviction, memory, persistence, replicas and clock are \
                        not checked; add +info";
            findings.push(Finding::unchecked("server", text));
            return Ok(findings);
        };
        findings.extend(check::findings(&info, self.connection.is_cluster()));
        findings.push(facts::memory(&info));
        findings.push(facts::persistence(&info, &settings));
        findings.extend(facts::replicas(&info, self.connection.has_sentinels()));
        findings.extend(facts::clients(&info));
        findings.extend(clock(&info, asked, answered));
        Ok(findings)
    }

    /// Looks whether the first records of a scan can be read.
    async fn sample(&self) -> Finding {
        const CHECK: &str = "records";
        let sampled = timeout(PATIENCE, self.page(&Selection::all(), None, SAMPLE)).await;
        let page = match sampled {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return Finding::unchecked(CHECK, format!("no record was looked at: {error}")),
            Err(_elapsed) => return Finding::unchecked(CHECK, "no record was looked at: the server took too long"),
        };
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for listed in &page.records {
            if let Listed::Unreadable(unreadable) = listed {
                // What follows is about one record.
                let reason = unreadable.why.split(';').next().unwrap_or_default();
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let count = page.records.len();
        if reasons.is_empty() {
            return Finding::good(CHECK, format!("{count} records were looked at, and all can be read"));
        }
        let unreadable: usize = reasons.values().sum();
        let reasons: Vec<_> = reasons
            .iter()
            .map(|(why, count)| format!("{count} because {why}"))
            .collect();
        let text = format!(
            "{unreadable} of {count} records cannot be read, and requests with their keys are refused: {}",
            reasons.join(", ")
        );
        Finding::warning(CHECK, text)
    }
}

/// Whether a node finds that its cluster can serve.
fn cluster_state(info: &InfoDict) -> Option<Finding> {
    const CHECK: &str = "cluster";
    let state = info.get::<String>("cluster_state")?;
    Some(if state == "ok" {
        Finding::good(CHECK, "the state of the cluster is ok")
    } else {
        let text =
            format!("the state of the cluster is {state}, and claims fail; look at CLUSTER INFO and CLUSTER NODES");
        Finding::failing(CHECK, text)
    })
}

fn slots(covered: usize) -> Finding {
    const CHECK: &str = "slots";
    if covered == SLOTS {
        return Finding::good(CHECK, "every slot has a primary");
    }
    let missing = SLOTS.saturating_sub(covered);
    let text = format!("{missing} of {SLOTS} slots have no primary, and claims of their keys fail");
    Finding::failing(CHECK, text)
}

/// Compares the server's clock with that of this process, which was `asked` before the answer and `answered` after it.
fn clock(info: &InfoDict, asked: SystemTime, answered: SystemTime) -> Option<Finding> {
    const CHECK: &str = "clock";
    let server = SystemTime::UNIX_EPOCH + Duration::from_micros(info.get("server_time_usec")?);
    let ahead = server.duration_since(answered).unwrap_or_default();
    let behind = asked.duration_since(server).unwrap_or_default();
    let (by, way) = if ahead > behind {
        (ahead, "ahead of")
    } else {
        (behind, "behind")
    };
    if by < CLOCKS {
        return Some(Finding::good(
            CHECK,
            "the server's clock agrees with that of this process",
        ));
    }
    let text = format!(
        "the server's clock is {:.1} s {way} that of this process. Leases and expiry go by the server's clock alone; the times \
         of records and `rerun_within` go by the clocks of the processes",
        by.as_secs_f64()
    );
    Some(Finding::warning(CHECK, text))
}

/// One list of the findings of several servers: what is not good, with the server's address, and what is good everywhere.
fn merged(servers: &[(&str, Vec<Finding>)]) -> Vec<Finding> {
    let mut checks: Vec<&'static str> = Vec::new();
    for finding in servers.iter().flat_map(|(_, found)| found) {
        if !checks.contains(&finding.check) {
            checks.push(finding.check);
        }
    }
    let mut merged = Vec::new();
    for check in checks {
        let of_check = servers.iter().flat_map(|(address, found)| {
            let found = found.iter().filter(move |finding| finding.check == check);
            found.map(move |finding| (*address, finding))
        });
        let (good, bad): (Vec<_>, Vec<_>) = of_check.partition(|(_, finding)| finding.health == Health::Good);
        let (shown, is_everywhere) = if bad.is_empty() {
            (good, true)
        } else {
            let is_everywhere = bad.len() == servers.len();
            (bad, is_everywhere)
        };
        let Some((_, first)) = shown.first() else { continue };
        if is_everywhere && shown.iter().all(|(_, finding)| finding == first) {
            merged.push((*first).clone());
            continue;
        }
        merged.extend(shown.into_iter().map(|(address, finding)| Finding {
            text: if address.is_empty() {
                finding.text.clone()
            } else {
                format!("{address}: {}", finding.text)
            },
            ..finding.clone()
        }));
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_everywhere_is_said_once_and_what_is_not_with_its_server() {
        let good = || Finding::good("role", "a primary");
        let one = merged(&[("", vec![good()])]);
        assert_eq!(one, [good()]);
        let of_three = merged(&[
            ("a:1", vec![good(), Finding::good("memory", "1 byte")]),
            ("b:1", vec![good(), Finding::warning("memory", "9 bytes")]),
            ("c:1", vec![good(), Finding::good("memory", "2 bytes")]),
        ]);
        assert_eq!(of_three, [good(), Finding::warning("memory", "b:1: 9 bytes")]);
        let each = merged(&[
            ("a:1", vec![Finding::good("memory", "1 byte")]),
            ("b:1", vec![Finding::good("memory", "2 bytes")]),
        ]);
        assert_eq!(each[1], Finding::good("memory", "b:1: 2 bytes"));
    }

    #[test]
    fn a_clock_is_compared_with_the_time_of_the_question_and_of_the_answer() {
        let second = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let health = |server: u64| {
            let info = format!("server_time_usec:{}", server * 1_000_000);
            clock(&InfoDict::new(&info), second(100), second(110)).map(|found| found.health)
        };
        assert_eq!([100, 105, 110].map(health), [Some(Health::Good); 3]);
        assert_eq!([98, 112].map(health), [Some(Health::Warning); 2]);
        assert_eq!(clock(&InfoDict::new(""), second(0), second(0)), None);
    }

    #[test]
    fn slots_without_a_primary_are_counted() {
        assert_eq!(slots(SLOTS).health, Health::Good);
        assert!(slots(SLOTS - 2).text.starts_with("2 of 16384"));
    }
}
