//! What of an output varies from run to run, and is written as a word in angle brackets.
//!
//! Owns durations, times of day, fresh tokens, costs, and what a store says of its version. What the tests fix stays.

/// The text without what varies.
pub(super) fn normal(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().map(line).collect();
    // Each store has an order of its own. The first line of a table is its header.
    if lines.first().is_some_and(|first| first.starts_with("STATE ")) {
        let is_row = |line: &&String| line.contains(" ago ") || line.contains("unreadable  -");
        let rows = lines[1..].iter().take_while(is_row).count();
        lines[1..=rows].sort();
    }
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn line(line: &str) -> String {
    // Each store says in its own words why a record cannot be read.
    if let Some((row, _why)) = line.split_once(" (").filter(|(row, _)| row.starts_with("unreadable ")) {
        return line_of(&format!("{row} (<why>)"));
    }
    line_of(line)
}

fn line_of(line: &str) -> String {
    let mut normal = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let is_part = |character: char| character.is_ascii_alphanumeric() || "-_.:".contains(character);
        let len = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        if len == 0 {
            // As wide as its widest cell: columns depend on durations.
            let is_third_space = first == ' ' && normal.ends_with("  ");
            normal.extend((!is_third_space).then_some(first));
            rest = &rest[first.len_utf8()..];
        } else {
            normal.push_str(&word(&rest[..len], &normal));
            rest = &rest[len..];
        }
    }
    normal
}

/// A word as it is written; `before` is the line up to it.
fn word(word: &str, before: &str) -> String {
    // Not the end of a colour.
    if is_duration(word) && !before.ends_with('[') {
        return "<duration>".to_owned();
    }
    if is_time(word) && !word.starts_with("2026-01-01T") {
        return "<time>".to_owned();
    }
    // A record with steps has their digest behind the token.
    if let Some((phase, token)) = word.split_once('-')
        && is_random(token.split('-').next().unwrap_or_default())
    {
        return format!("{phase}-<token>");
    }
    // In JSON, the colon and the number are one word.
    if let Some(number) = word.strip_prefix(':')
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        let names = ["expires_in_ms\"", "commands\"", "looked_at\""];
        let is_lease = before.ends_with("lease_left_ms\"") && number != "0";
        if is_lease || names.iter().any(|name| before.ends_with(name)) {
            return ":<number>".to_owned();
        }
    }
    word.to_owned()
}

/// `59s`, `1h59m`, `330d05h`, `17ms`.
fn is_duration(word: &str) -> bool {
    let ends = ["ms", "s", "m", "h"];
    let is_fit = word
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"dhmsn.".contains(&byte));
    is_fit && word.starts_with(|first: char| first.is_ascii_digit()) && ends.iter().any(|end| word.ends_with(end))
}

/// `2026-01-01T00:00:00.000Z`.
fn is_time(word: &str) -> bool {
    // With milliseconds or, in a log line, microseconds.
    [24, 27].contains(&word.len()) && word.ends_with('Z') && word.as_bytes()[10] == b'T'
}

/// A token that no test has chosen: those repeat one byte.
fn is_random(token: &str) -> bool {
    let is_token = token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_token && token != token[..2].repeat(16)
}

#[test]
fn what_varies_is_written_as_a_word_and_the_rest_is_left() {
    let table = [
        ("stored  330d05h ago  1h59m", "stored  <duration> ago  <duration>\n"),
        ("at 2026-11-28T13:40:00.123Z", "at <time>\n"),
        ("2026-11-28T13:40:00.123456Z  WARN", "<time>  WARN\n"),
        ("\u{1b}[0mx", "\u{1b}[0mx\n"),
        ("at 2026-01-01T00:00:00.000Z", "at 2026-01-01T00:00:00.000Z\n"),
        ("parked-0123456789abcdef0123456789abcdef", "parked-<token>\n"),
        (
            &super::records::version("parked", 5),
            &(super::records::version("parked", 5) + "\n"),
        ),
        (
            "{\"expires_in_ms\":123,\"a\":123}",
            "{\"expires_in_ms\":<number>,\"a\":123}\n",
        ),
        ("{\"lease_left_ms\":0}", "{\"lease_left_ms\":0}\n"),
        ("wide      cell", "wide  cell\n"),
    ];
    for (text, expected) in table {
        assert_eq!(normal(text), expected);
    }
}
