//! The JSON of every command, against `docs/cli.schema.json`.
//!
//! Owns a checker for the keywords that the schema uses. A keyword that it does not know is a failure, so that nothing is left unchecked.

use std::collections::BTreeSet;

use idem_core::Completion;
use idem_tests::in_time;
use serde_json::{Value, json};

use super::records::{REQUEST, complete, fill, named, payment, version};
use super::{Ran, Store};

/// The checker.
struct Schema(Value);

impl Schema {
    fn read() -> Self {
        let text = include_str!("../../../docs/cli.schema.json");
        Self(serde_json::from_str(text).expect("JSON"))
    }

    /// What is wrong with a value, if anything is.
    fn fault(&self, schema: &Value, value: &Value) -> Option<String> {
        let keywords = schema.as_object().expect("a schema is an object");
        keywords.iter().find_map(|(keyword, wanted)| match keyword.as_str() {
            "description" => None,
            "$ref" => {
                let path = wanted
                    .as_str()
                    .and_then(|path| path.strip_prefix('#'))
                    .expect("a path in this schema");
                self.fault(
                    self.0.pointer(path).unwrap_or_else(|| panic!("{path} is not there")),
                    value,
                )
            }
            "anyOf" => {
                let faults = list(wanted)
                    .iter()
                    .map(|any| self.fault(any, value))
                    .collect::<Option<Vec<_>>>();
                faults.map(|faults| faults.join("; or "))
            }
            "type" => {
                let names = wanted
                    .as_array()
                    .map_or_else(|| vec![wanted], |names| names.iter().collect());
                let is_any = names.iter().any(|name| is_of(name.as_str().expect("a name"), value));
                (!is_any).then(|| format!("{value} is not of type {wanted}"))
            }
            "enum" => (!list(wanted).contains(value)).then(|| format!("{value} is not one of {wanted}")),
            "required" => {
                let object = value.as_object()?;
                let missing = list(wanted)
                    .iter()
                    .find(|name| !object.contains_key(name.as_str().expect("a name")));
                missing.map(|name| format!("{name} is missing in {value}"))
            }
            "properties" => {
                let mut members = value.as_object()?.iter();
                members.find_map(|(name, member)| {
                    // A later version may print more members, and this one prints none that the schema does not have.
                    let Some(wanted) = wanted.get(name) else {
                        return Some(format!("{name} is not in the schema"));
                    };
                    let fault = self.fault(wanted, member)?;
                    Some(format!("{name}: {fault}"))
                })
            }
            "items" => value.as_array()?.iter().find_map(|item| self.fault(wanted, item)),
            other => panic!("the checker does not know {other}"),
        })
    }

    /// Checks each line of a command's output, and returns the lines.
    fn check(&self, command: &str, ran: &Ran) -> Vec<Value> {
        let lines = ran.json();
        assert!(!lines.is_empty(), "{command}: {ran:#?}");
        let schema = &self.0["$defs"][command];
        for line in &lines {
            if let Some(fault) = self.fault(schema, line) {
                panic!("{command}: {fault}\n{line}");
            }
        }
        lines
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("the checker does not know {other}"),
    }
}

#[test]
fn the_checker_finds_what_does_not_fit() {
    let schema = Schema(json!({ "$defs": { "small": { "type": "integer" } } }));
    let object = json!({
        "type": "object",
        "required": ["a"],
        "properties": { "a": { "$ref": "#/$defs/small" }, "b": { "type": "array", "items": { "enum": ["x"] } } },
    });
    let either = json!({ "anyOf": [{ "type": ["null", "boolean"] }, object.clone()] });
    let fit = [json!({ "a": 1 }), json!({ "a": 1, "b": ["x", "x"] })];
    let unfit = [
        json!(1),
        json!({}),
        json!({ "a": "1" }),
        json!({ "a": 1.5 }),
        json!({ "a": 1, "c": 1 }),
        json!({ "a": 1, "b": "x" }),
        json!({ "a": 1, "b": ["y"] }),
    ];
    for value in &fit {
        assert_eq!(schema.fault(&object, value), None);
        assert_eq!(schema.fault(&either, value), None);
    }
    for value in &unfit {
        assert!(schema.fault(&object, value).is_some(), "{value}");
        assert!(schema.fault(&either, value).is_some(), "{value}");
    }
    assert_eq!(schema.fault(&either, &Value::Null), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_json_of_every_command_fits_the_schema() {
    in_time(async {
        let schema = Schema::read();
        let store = Store::redis().await;
        fill(&store).await;
        let mut states = BTreeSet::new();
        for line in schema.check("list", &store.idem(&["list", "--json"]).await) {
            for record in list(&line["records"]) {
                states.insert(record["state"].as_str().expect("a name").to_owned());
            }
        }
        assert_eq!(states.len(), 7, "one of each: {states:?}");
        schema.check("list", &store.idem(&["list", "--json", "--all"]).await);
        schema.check("list", &store.idem(&["list", "--json", "--limit", "1"]).await);
        for key in [
            "stored",
            "in-flight",
            "lapsed",
            "steps",
            "parked",
            "unknown",
            "not-stored",
        ] {
            for more in [&[][..], &["--reveal"], &["--hash-keys"]] {
                let record = named(key);
                schema.check(
                    "show",
                    &store.idem(&[&["show", &record, "--json"][..], more].concat()).await,
                );
            }
        }
        schema.check(
            "show",
            &store
                .idem(&["show", "task ship:acme:order-7", "--json", "--reveal"])
                .await,
        );
        for request in [
            REQUEST.to_owned(),
            REQUEST.replace(":1}", ":2}"),
            REQUEST.replace(": stored", ": fresh"),
        ] {
            schema.check("why", &store.idem_told(&["why", "--json"], &request).await);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("other.http");
        std::fs::write(&file, REQUEST).expect("the file can be written");
        let file = file.to_str().expect("text");
        schema.check(
            "why",
            &store.idem_told(&["why", "--json", "--against", file], REQUEST).await,
        );
        schema.check("stats", &store.idem(&["stats", "--json"]).await);
        schema.check("doctor", &store.idem(&["doctor", "--json"]).await);
        schema.check(
            "forget-scope",
            &store.idem(&["forget-scope", "--scope", "acme", "--json"]).await,
        );
        let because = ["--reason", "r", "--json"];
        let results = [
            ("forget", vec!["in-flight", "--yes"], "live"),
            ("forget", vec!["stored", "--yes"], "applied"),
            ("resolve", vec!["lapsed", "--unknown", "--yes"], "applied"),
            ("resolve", vec!["parked", "--rerun", "--yes"], "applied"),
            (
                "resolve",
                vec![
                    "unknown",
                    "--rerun",
                    "--token",
                    "completed-09090909090909090909090909090909",
                ],
                "changed",
            ),
        ];
        for (command, mut words, result) in results {
            let record = named(words.remove(0));
            let line = [&[command, &record][..], &words, &because].concat();
            let lines = schema.check(command, &store.idem(&line).await);
            assert_eq!(lines[0]["result"], result);
        }
        let line = ["forget-scope", "--scope", "acme", "--yes", "--reason", "r", "--json"];
        schema.check("forget-scope", &store.idem(&line).await);
    })
    .await;
}

/// Between two looks, one record appears, one is changed and one is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_that_is_watched_fits_the_schema() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    in_time(async {
        let schema = Schema::read();
        let store = Store::redis().await;
        complete(&store.backend, &payment("gone"), 1, Completion::Unknown).await;
        let mut command = store.command(&["watch", "--json", "--every", "10ms"]);
        let piped = std::process::Stdio::piped;
        let mut watch = command.stdout(piped()).stderr(piped()).spawn().expect("it starts");
        let mut out = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
        let mut err = BufReader::new(watch.stderr.take().expect("it is piped")).lines();
        err.next_line().await.expect("it runs").expect("it has looked once");
        complete(&store.backend, &payment("new"), 2, Completion::Unknown).await;
        let (record, token) = (named("gone"), version("completed", 1));
        store
            .idem(&["forget", &record, "--token", &token, "--reason", "r"])
            .await
            .exits(0);
        let mut is_gone = false;
        while !is_gone {
            let line = out.next_line().await.expect("it runs").expect("a line");
            let value: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(schema.fault(&schema.0["$defs"]["watch"], &value), None, "{line}");
            is_gone = value["gone"].is_string();
        }
    })
    .await;
}
