//! A record as it is printed, for people and for programs.
//!
//! Owns what is secret. Without `--reveal`, nothing of a body, of a header's value, of a step's result or of a fingerprint is in a view.

mod answer;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use idem_core::inspect::{Listed, RecordDetails, RecordState, RecordSummary, StepState};
use idem_core::{Completion, Record};
use serde::Serialize;

use self::answer::AnswerView;
pub(crate) use self::answer::is_task;
use crate::args::StateName;
use crate::output::{Cell, Output, Tone};

/// A record in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RecordView {
    /// The record key, or what is shown in its place.
    pub(crate) record: String,
    operation: String,
    scope: String,
    key: String,
    pub(crate) state: &'static str,
    /// Of a record with steps, a list does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    attempt: u32,
    began_at: String,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_left_ms: Option<u64>,
    expires_in_ms: u64,
    has_steps: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<FingerprintView>,
}

#[derive(Debug, Serialize)]
struct StepJson {
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
}

#[derive(Debug, Serialize)]
struct FingerprintView {
    scheme: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// A record that cannot be read, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct UnreadableView {
    record: String,
    state: &'static str,
    why: String,
    version: Option<String>,
}

/// The last millisecond of the year 9999, after 1970.
const LAST_TIME: Duration = Duration::from_millis(253_402_300_799_999);

pub(crate) fn state_of(summary: &RecordSummary) -> StateName {
    match &summary.state {
        RecordState::Claimed { remaining, .. } if remaining.is_zero() => StateName::Lapsed,
        RecordState::Claimed { .. } => StateName::InFlight,
        RecordState::Parked => StateName::Parked,
        RecordState::Stored { .. } => StateName::Stored,
        RecordState::NotStored => StateName::NotStored,
        RecordState::Unknown => StateName::Unknown,
    }
}

fn tone_of(state: StateName) -> Tone {
    match state {
        StateName::InFlight => Tone::Good,
        StateName::Stored => Tone::Plain,
        StateName::Lapsed | StateName::Parked | StateName::NotStored => Tone::Warning,
        StateName::Unknown | StateName::Unreadable => Tone::Bad,
    }
}

/// Milliseconds, for programs.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Two units at most, for people.
pub(crate) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..=59 => format!("{seconds}s"),
        60..=3_599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// RFC 3339. A time that has no such form, which only a spoilt record has, is shown as the first or the last one that has.
pub(crate) fn time(at: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + LAST_TIME;
    humantime::format_rfc3339_millis(at.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

impl RecordView {
    pub(crate) fn of(summary: &RecordSummary, output: &Output) -> Self {
        let key = output.chosen(&summary.key);
        let lease_left_ms = match &summary.state {
            RecordState::Claimed { remaining, .. } => Some(millis(*remaining)),
            _ => None,
        };
        Self {
            record: output.key(&summary.key),
            operation: summary.key.operation().into_owned(),
            scope: key.shown_scope().to_string(),
            key: key.shown_key().to_string(),
            state: state_of(summary).name(),
            version: summary.version().map(|version| version.to_string()),
            attempt: summary.attempt,
            began_at: time(summary.began_at),
            owner: summary.owner.as_str().to_owned(),
            lease_left_ms,
            expires_in_ms: millis(summary.expires_in),
            has_steps: summary.state.has_steps(),
            answer: match &summary.state {
                RecordState::Stored { len, head } => Some(AnswerView::of_head(&summary.key.operation(), *len, head)),
                _ => None,
            },
            steps: None,
            fingerprint: None,
        }
    }

    /// All that is known of a record; with its secrets, if the operator has asked for them.
    pub(crate) fn of_details(details: &RecordDetails, output: &Output, reveals: bool) -> Self {
        let summary = &details.summary;
        let bytes = summary.fingerprint.to_bytes();
        let (scheme, digest) = bytes.split_first().unwrap_or((&0, &[]));
        Self {
            answer: payload(details).map(|payload| AnswerView::of(&summary.key.operation(), payload, reveals)),
            steps: Some(details.steps().iter().map(|step| StepJson::of(step, reveals)).collect()),
            fingerprint: Some(FingerprintView {
                scheme: *scheme,
                digest: reveals.then(|| hex(digest)),
            }),
            ..Self::of(summary, output)
        }
    }
}

/// The stored answer of a record, if it has one.
pub(crate) fn payload(details: &RecordDetails) -> Option<&Bytes> {
    match &details.record {
        Record::Completed {
            completion: Completion::Stored(payload),
            ..
        } => Some(payload),
        _ => None,
    }
}

impl StepJson {
    fn of(step: &idem_core::inspect::StepView, reveals: bool) -> Self {
        let (state, result) = match &step.state {
            StepState::Started => ("started", None),
            StepState::Done(result) => ("done", Some(result)),
            StepState::DoneWithoutResult => ("done-without-result", None),
            StepState::Unreadable => ("unreadable", None),
        };
        // As it is recorded: a number that is read and written again may lose digits.
        let as_recorded = |result: &Bytes| String::from_utf8_lossy(result).into_owned();
        let result = result.filter(|_| reveals).map(as_recorded);
        Self {
            name: step.name.clone(),
            state,
            attempt: step.attempt,
            result,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The columns of a list.
pub(crate) const COLUMNS: [&str; 7] = ["STATE", "ATTEMPT", "BEGAN", "LEASE", "EXPIRES", "ANSWER", "RECORD"];

/// A record as a row of a list.
pub(crate) fn row(listed: &Listed, output: &Output, now: SystemTime) -> Vec<Cell> {
    let summary = match listed {
        Listed::Record(summary) => summary,
        Listed::Unreadable(unreadable) => {
            let state = Cell::toned(StateName::Unreadable.name(), Tone::Bad);
            let dash = || Cell::toned("-", Tone::Faint);
            let name = format!("{} ({})", output.name(&unreadable.name), unreadable.why);
            return vec![state, dash(), dash(), dash(), dash(), dash(), Cell::new(name)];
        }
    };
    let state = state_of(summary);
    let view = RecordView::of(summary, output);
    let age = now.duration_since(summary.began_at).unwrap_or_default();
    let lease = view
        .lease_left_ms
        .map_or("-".to_owned(), |left| rough(Duration::from_millis(left)));
    vec![
        Cell::toned(state.name(), tone_of(state)),
        Cell::new(summary.attempt.to_string()),
        Cell::new(format!("{} ago", rough(age))),
        Cell::new(lease),
        Cell::new(rough(summary.expires_in)),
        Cell::new(view.answer.as_ref().map_or("-".to_owned(), AnswerView::brief)),
        Cell::new(view.record),
    ]
}

/// A record in JSON, whether or not it can be read.
pub(crate) fn json(listed: &Listed, output: &Output) -> serde_json::Value {
    let value = match listed {
        Listed::Record(summary) => serde_json::to_value(RecordView::of(summary, output)),
        Listed::Unreadable(unreadable) => serde_json::to_value(UnreadableView {
            record: output.name(&unreadable.name),
            state: StateName::Unreadable.name(),
            why: unreadable.why.clone(),
            version: unreadable.version.map(|version| version.to_string()),
        }),
    };
    value.unwrap_or_default()
}

/// All that is known of a record, line by line.
pub(crate) fn lines(details: &RecordDetails, output: &Output, reveals: bool, now: SystemTime) -> Vec<(String, String)> {
    let view = RecordView::of_details(details, output, reveals);
    let age = now.duration_since(details.summary.began_at).unwrap_or_default();
    let mut lines = vec![
        ("record".to_owned(), view.record),
        ("operation".to_owned(), view.operation),
        ("scope".to_owned(), view.scope),
        ("key".to_owned(), view.key),
        ("state".to_owned(), view.state.to_owned()),
        ("version".to_owned(), details.version().to_string()),
        ("attempt".to_owned(), view.attempt.to_string()),
        ("began".to_owned(), format!("{} ({} ago)", view.began_at, rough(age))),
        ("owner".to_owned(), view.owner),
    ];
    let mut add = |name: &str, value: String| lines.push((name.to_owned(), value));
    if let Some(left) = view.lease_left_ms {
        let left = match left {
            0 => "lapsed".to_owned(),
            left => format!("{} left", rough(Duration::from_millis(left))),
        };
        add("lease", left);
    }
    add("expires", format!("in {}", rough(details.summary.expires_in)));
    for step in view.steps.unwrap_or_default() {
        let by = step
            .attempt
            .map_or(String::new(), |attempt| format!(", by attempt {attempt}"));
        let result = step.result.map_or(String::new(), |result| format!(": {result}"));
        add("step", format!("{} {}{by}{result}", step.name, step.state));
    }
    if let Some(answer) = &view.answer {
        add("answer", answer.brief());
        for header in answer.headers.iter().flatten() {
            let value = header.value.as_deref().unwrap_or("(hidden)");
            add("header", format!("{}: {value}", header.name));
        }
        let body = match (&answer.body, answer.body_bytes) {
            (Some(body), _) => body.text().to_owned(),
            (None, Some(bytes)) => format!("{bytes} bytes (hidden)"),
            (None, None) => "it cannot be read by this version".to_owned(),
        };
        add("body", body);
    }
    if let Some(fingerprint) = &view.fingerprint {
        let digest = fingerprint.digest.as_deref().unwrap_or("(hidden)");
        add("fingerprint", format!("scheme {} {digest}", fingerprint.scheme));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_no_form_is_shown_all_the_same() {
        let after = |millis| time(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(after(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(after(i64::MAX.unsigned_abs()), "9999-12-31T23:59:59.999Z");
        assert_eq!(
            time(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
            "1970-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn durations_are_short() {
        let table = [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (59_999, "59s"),
            (60_000, "1m00s"),
            (3_600_000, "1h00m"),
            (90_061_000, "1d01h"),
        ];
        for (millis, text) in table {
            assert_eq!(rough(Duration::from_millis(millis)), text);
        }
    }
}
