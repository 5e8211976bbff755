//! The dashboard asks for what is served.
//!
//! Owns as much of the query language as the dashboard uses: names of metrics, matchers of labels, and `by`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::exposition::Page;
use crate::mix::counted;

const DASHBOARD: &str = include_str!("../../grafana/idem.json");

/// Outcomes of other settings than shipping's, and one that takes a duplicate 45 seconds.
const NOT_IN_THE_MIX: [&str; 2] = ["accepted", "in_flight"];

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).expect("JSON")
}

/// Those that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().expect("panels");
    panels.iter().filter(|panel| panel["type"] != "row").collect()
}

/// What a panel asks for, and how it names the answers.
fn queries(dashboard: &Value) -> Vec<(&str, &str)> {
    let targets = panels(dashboard)
        .into_iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets
        .map(|target| {
            let [expr, legend] = ["expr", "legendFormat"].map(|member| target[member].as_str().expect("a text"));
            (expr, legend)
        })
        .collect()
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn metrics_of(query: &str) -> BTreeSet<&str> {
    let words = query.split(|character| !is_word(character));
    words.filter(|word| word.starts_with("idem_")).collect()
}

/// What stands between each `open` and the `close` after it, with the last word before.
fn enclosed<'a>(query: &'a str, open: &str, close: char) -> Vec<(&'a str, &'a str)> {
    let ends = query.match_indices(open).map(|(start, _)| {
        let (before, inside) = (&query[..start], &query[start + open.len()..]);
        let word = before
            .rsplit(|character| !is_word(character))
            .next()
            .expect("one at least");
        (word, inside.split(close).next().expect("one at least"))
    });
    ends.collect()
}

/// The labels that answers are kept apart by.
fn grouped_by(query: &str) -> BTreeSet<&str> {
    let lists = enclosed(query, "by (", ')');
    lists.into_iter().flat_map(|(_, list)| list.split(", ")).collect()
}

/// Looks for every metric, label and value of `query` in what is served.
fn check(query: &str, served: &Page) {
    let metrics = metrics_of(query);
    assert!(!metrics.is_empty(), "it asks for nothing: {query}");
    for metric in &metrics {
        assert!(served.has(metric), "{metric} is not served: {query}");
    }
    for label in grouped_by(query) {
        let has = |metric: &&str| !served.values(metric, label).is_empty();
        assert!(metrics.iter().all(has), "no label {label}: {query}");
    }
    for (metric, matchers) in enclosed(query, "{", '}') {
        for matcher in matchers.split(',') {
            let (label, value) = matcher.split_once('=').expect(query);
            let label = label.trim_end_matches('!');
            let served = served.values(metric, label);
            assert!(!served.is_empty(), "{metric} has no label {label}: {query}");
            let value = value.trim_start_matches('~').trim_matches('"');
            for value in value.split('|').filter(|value| !value.starts_with('$')) {
                let is_known = served.contains(value) || NOT_IN_THE_MIX.contains(&value);
                assert!(is_known, "{label} is never {value}: {query}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_the_dashboard_asks_for_is_served_and_nothing_served_is_left_out() {
    let counted = counted().await;
    let mut served = counted.without_redis.clone();
    served.merge(counted.overtaken.clone());
    served.merge(counted.overtaking.clone());

    let dashboard = dashboard();
    let queries = queries(&dashboard);
    for (query, legend) in &queries {
        check(query, &served);
        let named = enclosed(legend, "{{", '}');
        for (_, label) in named {
            assert!(
                grouped_by(query).contains(label),
                "no {label} to name answers by: {query}"
            );
        }
    }
    let asked: BTreeSet<&str> = queries.iter().flat_map(|(query, _)| metrics_of(query)).collect();
    for family in served.families() {
        let is_asked = asked.iter().any(|metric| metric.starts_with(family));
        assert!(is_asked, "no panel shows {family}");
    }
    let operation = dashboard["templating"]["list"][1]["query"]["query"].as_str();
    assert_eq!(operation, Some("label_values(idem_requests_total, operation)"));
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();

    assert!(
        dashboard["schemaVersion"].as_u64() >= Some(39),
        "of Grafana 10 or newer"
    );
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let panels = panels(&dashboard);
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().expect("an id"))
        .collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel:#}");
        assert!(
            panel["title"].is_string() && panel["description"].is_string(),
            "{panel:#}"
        );
        for target in panel["targets"].as_array().expect("targets") {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target:#}");
        }
    }
}
