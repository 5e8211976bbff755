//! What no command prints: bodies, header values, results and fingerprints without `--reveal`; scopes and keys with `--hash-keys`; and
//! characters that a terminal would obey.

use std::fmt::Write as _;
use std::fs;

use bytes::Bytes;
use http::{HeaderValue, Response};
use idem_core::steps::StepBackend;
use idem_core::{Backend, Claim, Completion, Fenced, IdempotencyKey, Owner, RecordKey, Scope};
use idem_tests::in_time;

use super::records::{
    BODY, HEADER, REQUEST, RESULT, TASK, answer, claim, complete, fill, fingerprint, lapse, named, take,
    take_with_steps,
};
use super::settling::on_each_backend;
use super::{Ran, Store};

on_each_backend! {
    without_reveal_no_command_prints_what_a_record_keeps
    with_hashed_keys_no_command_prints_a_scope_or_a_key
    no_command_prints_what_a_terminal_would_obey
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Whole groups of three bytes, in both alphabets.
fn base64(bytes: &[u8], last: [char; 2]) -> String {
    let digit = |bits: u32| match char::from_u32(bits & 63).map_or(0, u32::from) {
        0..=25 => char::from_u32('A' as u32 + (bits & 63)),
        26..=51 => char::from_u32('a' as u32 + (bits & 63) - 26),
        52..=61 => char::from_u32('0' as u32 + (bits & 63) - 52),
        bits => last.get(bits as usize - 62).copied(),
    };
    let group = |three: &[u8]| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| digit(bits >> shift).expect("a digit"))
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

/// The forms in which a secret could appear: as it is, and parts of it as digits.
fn forms(secret: &[u8]) -> Vec<String> {
    let mut forms: Vec<_> = std::str::from_utf8(secret)
        .ok()
        .map(str::to_owned)
        .into_iter()
        .collect();
    for part in secret.windows(9.min(secret.len())) {
        forms.push(hex(part));
        forms.push(hex(part).to_uppercase());
        forms.push(base64(part, ['+', '/']));
        forms.push(base64(part, ['-', '_']));
    }
    // A short part would be in anything.
    forms.retain(|form| form.len() >= 6);
    forms
}

#[test]
fn a_secret_is_found_in_each_form() {
    assert_eq!(base64(b"any carnal pleas", ['+', '/']), "YW55IGNhcm5hbCBwbGVh");
    assert_eq!(base64(&[0xfb, 0xff, 0xfe], ['-', '_']), "-__-");
    let forms = forms(b"s3cret-key");
    for form in ["s3cret-key", "7333637265742d6b65", "czNjcmV0LWtl"] {
        assert!(forms.iter().any(|known| known == form), "{form}: {forms:?}");
    }
}

#[track_caller]
fn assert_hides(ran: &Ran, line: &[&str], secrets: &[Vec<String>]) {
    let printed = ran.all();
    for form in secrets.iter().flatten() {
        assert!(!printed.contains(form.as_str()), "{line:?} prints {form}: {printed}");
    }
    assert!(!printed.contains("panicked"), "{line:?}: {printed}");
}

/// Lines of every command that reads.
fn reading<'a>(records: &'a [String], file: &'a str) -> Vec<Vec<&'a str>> {
    let mut lines = vec![
        vec!["list"],
        vec!["list", "--limit", "1"],
        vec!["list", "--all"],
        vec!["stats"],
        vec!["watch", "--looks", "1"],
        vec!["doctor"],
        vec!["forget-scope", "--operation", "POST /payments"],
        vec!["why", file],
        vec!["why", file, "--against", file],
    ];
    lines.extend(records.iter().map(|record| vec!["show", record.as_str()]));
    for line in &mut lines {
        line.push("-vv");
    }
    let json = lines.clone().into_iter().map(|mut line| {
        line.push("--json");
        line
    });
    let json: Vec<_> = json.collect();
    lines.extend(json);
    lines
}

async fn without_reveal_no_command_prints_what_a_record_keeps<B: Backend + StepBackend>(store: Store<B>) {
    fill(&store).await;
    let digest = fingerprint().to_bytes()[1..].to_vec();
    let mut secrets: Vec<_> = [BODY, HEADER, RESULT, TASK]
        .map(|secret| forms(secret.as_bytes()))
        .to_vec();
    secrets.push(forms(&digest));
    let names = [
        "stored",
        "in-flight",
        "lapsed",
        "steps",
        "parked",
        "unknown",
        "not-stored",
        "unreadable",
    ];
    let mut records: Vec<_> = names.map(named).to_vec();
    records.push("task ship:acme:order-7".to_owned());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("request");
    // Not equal to the first one, so that the command looks for the difference.
    fs::write(&file, REQUEST.replace(":1}", ":2}")).expect("the file can be written");
    let file = file.to_str().expect("text");
    for line in reading(&records, file) {
        assert_hides(&store.idem(&line).await, &line, &secrets);
    }
    // What is hidden is there.
    let revealed = store.idem(&["show", &records[0], "--reveal"]).await.exits(0).out;
    for secret in [BODY, HEADER, &hex(&digest)] {
        assert!(revealed.contains(secret), "{revealed}");
    }
    let because = ["--reason", "r", "-vv"];
    let changes: [&[&str]; 7] = [
        &[
            "forget",
            &records[0],
            "--token",
            "claimed-01010101010101010101010101010101",
        ],
        &[
            "resolve",
            &records[0],
            "--status",
            "200",
            "--header",
            "x-by: HE4DER-of-the-answer",
            "--body",
            BODY,
            "--yes",
        ],
        &[
            "resolve",
            &records[3],
            "--step",
            "mail",
            "--done",
            "\"RE5ULT-of-a-step\"",
            "--yes",
            "--force",
        ],
        &[
            "resolve",
            &records[3],
            "--step",
            "none",
            "--not-done",
            "--yes",
            "--force",
        ],
        &["resolve", &records[8], "--result", "{\"a\":\"T4SK-result\"}", "--yes"],
        &["forget", &records[4], "--yes"],
        &["forget-scope", "--scope", "acme", "--yes", "--force"],
    ];
    for change in changes {
        let line = [change, &because].concat();
        assert_hides(&store.idem(&line).await, &line, &secrets);
    }
}

const SCOPE: &str = "Sc0pe-of-acme";
const KEY: &str = "Inv0ice-17";

async fn with_hashed_keys_no_command_prints_a_scope_or_a_key<B: Backend + StepBackend>(store: Store<B>) {
    let key_of = |suffix: &str| {
        let key = IdempotencyKey::of(&format!("{KEY}{suffix}"));
        RecordKey::new("POST /payments", &Scope::of(SCOPE), &key).expect("a key")
    };
    let keys = ["-a", "-b", "-c", "-d"].map(key_of);
    let stored = Completion::Stored(answer());
    complete(&store.backend, &keys[0], 1, stored).await;
    take(&store.backend, &keys[1], &claim(2)).await;
    lapse(&store.backend, &keys[2], 3).await;
    complete(&store.backend, &keys[3], 4, Completion::Unknown).await;
    // The record that is copied where an unreadable one is planted.
    let copied = RecordKey::new("POST /payments", &Scope::of(SCOPE), &IdempotencyKey::of("stored")).expect("a key");
    complete(&store.backend, &copied, 5, Completion::NotStored).await;
    store
        .plant_unreadable(&format!("POST%20/payments:{SCOPE}:{KEY}-unreadable"))
        .await;
    store.plant_unreadable(&format!("{SCOPE} {KEY}")).await;
    let secrets = [SCOPE, KEY].map(|secret| forms(secret.as_bytes()));
    let mut records: Vec<_> = keys.iter().map(ToString::to_string).collect();
    records.push(key_of("-absent").to_string());
    records.push(key_of("-unreadable").to_string());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("request");
    let request = REQUEST.replace(": stored", &format!(": {KEY}-a"));
    fs::write(&file, request).expect("the file can be written");
    let file = file.to_str().expect("text");
    let hashed = |line: &[&'static str]| [line, &["--hash-keys", "-vv", "--reason", "r"]].concat();
    for mut line in reading(&records, file) {
        line.push("--hash-keys");
        assert_hides(&store.idem(&line).await, &line, &secrets);
    }
    let list = store
        .idem(&["list", "--limit", "1", "--json", "--hash-keys"])
        .await
        .exits(0)
        .json();
    let is_sqlite = matches!(store.place, super::Place::Sqlite(_));
    assert!(
        !is_sqlite || (list[0]["has_more"] == true && list[0]["next"].is_null()),
        "{list:?}"
    );
    // The hashes name the record.
    let named = list[0]["records"][0]["record"].as_str().expect("a key").to_owned();
    assert_ne!(store.idem(&["show", &named, "--hash-keys"]).await.code, 2);
    for (at, more) in [
        (
            0,
            &["forget", "--token", "claimed-01010101010101010101010101010101"][..],
        ),
        (1, &["forget", "--yes"]),
        (1, &["resolve", "--rerun", "--yes", "--force"]),
        (2, &["resolve", "--unknown", "--yes", "--json"]),
        (3, &["forget", "--yes"]),
        (3, &["forget", "--yes"]),
        (5, &["forget", "--yes"]),
    ] {
        let mut line = hashed(more);
        line.insert(1, &records[at]);
        assert_hides(&store.idem(&line).await, &line, &secrets);
    }
    // A record of the scope cannot be read.
    let line = hashed(&["forget-scope", "--scope", SCOPE, "--yes", "--force"]);
    let ran = store.idem(&line).await.exits(0);
    assert!(ran.err.contains("an operator has settled"), "{ran:#?}");
    assert_hides(&ran, &line, &secrets);
}

/// Each of them is obeyed by some terminal, or changes the order of what is beside it.
const HARMFUL: &str = "a\u{1b}[31mb\u{7}c\u{9b}2Jd\u{202e}e\u{2066}f\u{200b}g\u{feff}h\u{7f}i\u{85}j";

async fn no_command_prints_what_a_terminal_would_obey<B: Backend + StepBackend>(store: Store<B>) {
    let key_of = |operation: &str, key: &str| {
        RecordKey::new(operation, &Scope::of(HARMFUL), &IdempotencyKey::of(key)).expect("a key")
    };
    let operation = format!("POST /{HARMFUL}");
    let owned = |number| Claim {
        owner: Owner::new(HARMFUL),
        ..claim(number)
    };
    let stored = key_of(&operation, HARMFUL);
    let value = HeaderValue::from_bytes(HARMFUL.replace(char::is_control, "").as_bytes()).expect("a value");
    let answer = Response::builder()
        .header("x-of-a-client", value)
        .body(Bytes::from(HARMFUL));
    let answer = idem_http::stored::encode(&answer.expect("a response")).expect("it fits");
    let held = owned(1);
    take(&store.backend, &stored, &held).await;
    let completed = store
        .backend
        .complete(&stored, &held, &Completion::Stored(answer), held.ttl)
        .await;
    assert_eq!(completed.expect("the store answers"), Fenced::Applied);
    let with_steps = key_of(&operation, "steps");
    let result = serde_json::to_vec(HARMFUL).expect("JSON");
    let step = [&[1, 2, 0, 0, 0, 1, 0], &result[..]].concat();
    take_with_steps(&store.backend, &with_steps, 2, &[(HARMFUL, step.into())]).await;
    let task = key_of(&format!("task {HARMFUL}"), "task");
    let result = [&[1, 1], HARMFUL.as_bytes()].concat();
    complete(&store.backend, &task, 3, Completion::Stored(result.into())).await;
    let names = [&stored, &with_steps, &task].map(ToString::to_string);
    let because = ["--reason", "r", "--yes", "--force"];
    let mut lines: Vec<Vec<&str>> = vec![
        vec!["list"],
        vec!["stats"],
        vec!["forget-scope", "--scope", HARMFUL],
        vec!["resolve", &names[1], "--step", "none", "--not-done"],
    ];
    lines[3].extend(because);
    lines.extend(names.iter().map(|name| vec!["show", name, "--reveal"]));
    lines.push([&["forget", &names[1]][..], &because].concat());
    lines.push([&["forget-scope", "--scope", HARMFUL][..], &because].concat());
    for line in lines {
        for more in [&[][..], &["--json"]] {
            let line = [&line[..], more].concat();
            let ran = store.idem(&line).await;
            let is_harmful = |character: char| {
                (character.is_control() && character != '\n') || "\u{202e}\u{2066}\u{200b}\u{feff}".contains(character)
            };
            let found = ran.all().chars().find(|character| is_harmful(*character));
            assert_eq!(found, None, "{line:?}: {ran:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_escaped_in_json_is_read_back() {
    in_time(async {
        let store = Store::sqlite().await;
        let key = RecordKey::new(HARMFUL, &Scope::of("s"), &IdempotencyKey::of("k")).expect("a key");
        complete(&store.backend, &key, 1, Completion::Unknown).await;
        let shown = store.idem(&["show", key.as_str(), "--json"]).await.exits(0).json();
        assert_eq!(shown[0]["operation"], HARMFUL);
    })
    .await;
}
