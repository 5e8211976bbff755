//! What `/metrics` serves, read as strictly as the text format of Prometheus is written.
//!
//! Owns the syntax, and what holds of every page: each family is described and typed once, its samples are together,
//! counters count and histograms add up.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::Client;

/// A page that is well-formed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page(BTreeMap<String, Family>);

#[derive(Clone, Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<Series, f64>,
}

/// A sample's name and labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
}

impl Page {
    /// What the service serves now.
    pub(crate) async fn of(client: &Client) -> Self {
        let answer = client.get_bare("/metrics").await;
        assert_eq!(answer.status, 200);
        let version = answer.header("content-type");
        assert_eq!(version, Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(std::str::from_utf8(&answer.body).expect("UTF-8"))
    }

    fn parse(text: &str) -> Self {
        assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
        let mut page = Self::default();
        let mut described: BTreeSet<&str> = BTreeSet::new();
        let mut current = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, said) = help.split_once(' ').expect(line);
                assert!(is_name(name) && !said.is_empty(), "{line}");
                assert!(described.insert(name), "described twice: {line}");
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').expect(line);
                assert!(described.contains(name), "not described: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let kind = kind.to_owned();
                let samples = BTreeMap::new();
                let before = page.0.insert(name.to_owned(), Family { kind, samples });
                assert!(before.is_none(), "typed twice: {line}");
                current = name;
            } else {
                let (series, value) = Series::parse(line);
                let family = page.0.get_mut(current).expect(line);
                assert!(series.belongs(current, &family.kind), "of another family: {line}");
                let before = family.samples.insert(series, value);
                assert!(before.is_none(), "twice: {line}");
            }
        }
        for (name, family) in &page.0 {
            family.check(name);
        }
        page
    }

    /// The value of one series, if it is served.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let series = Series {
            name: name.to_owned(),
            labels: labels.collect(),
        };
        self.0.values().find_map(|family| family.samples.get(&series)).copied()
    }

    /// The sums of a counter or gauge, by the values of one of its labels.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (series, value) in self.0.get(name).into_iter().flat_map(|family| &family.samples) {
            *sums.entry(series.labels[label].clone()).or_default() += value;
        }
        sums
    }

    /// Adds what another page has to this one, as Prometheus does with what it scrapes from two services.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, family) in other.0 {
            let merged = self.0.entry(name).or_default();
            merged.kind = family.kind;
            for (series, value) in family.samples {
                *merged.samples.entry(series).or_default() += value;
            }
        }
    }

    /// The values that a label of a sample has; none where there is no such sample, or where it has no such label.
    pub(crate) fn values(&self, sample: &str, label: &str) -> BTreeSet<&str> {
        let samples = self.0.values().flat_map(|family| family.samples.keys());
        let named = samples.filter(|series| series.name == sample);
        named
            .filter_map(|series| series.labels.get(label).map(String::as_str))
            .collect()
    }

    /// Whether there is a sample of that name.
    pub(crate) fn has(&self, sample: &str) -> bool {
        self.names().contains(sample)
    }

    /// The names of families.
    pub(crate) fn families(&self) -> BTreeSet<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn names(&self) -> BTreeSet<&str> {
        let samples = self.0.values().flat_map(|family| family.samples.keys());
        samples.map(|series| series.name.as_str()).collect()
    }
}

impl Series {
    fn parse(line: &str) -> (Self, f64) {
        let end = line.find(['{', ' ']).expect(line);
        let (name, rest) = line.split_at(end);
        assert!(is_name(name), "{line}");
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest, line),
            None => (BTreeMap::new(), rest),
        };
        let value = value.strip_prefix(' ').expect(line);
        // The only words that are numbers here, and none of them is one of ours.
        assert!(!value.contains(['N', 'I', 'n', 'i', ' ']), "{line}");
        let name = name.to_owned();
        (Self { name, labels }, value.parse().expect(line))
    }

    fn belongs(&self, family: &str, kind: &str) -> bool {
        match (kind, self.name.strip_prefix(family)) {
            ("histogram", Some("_bucket")) => self.labels.contains_key("le"),
            ("histogram", Some("_sum" | "_count")) | ("counter" | "gauge", Some("")) => !self.labels.contains_key("le"),
            _ => false,
        }
    }
}

impl Family {
    fn check(&self, name: &str) {
        assert!(!self.samples.is_empty(), "{name} has no sample");
        assert_eq!(
            self.kind == "counter",
            name.ends_with("_total"),
            "{name} is a {}",
            self.kind
        );
        for (series, value) in &self.samples {
            let counts = self.kind == "counter" || series.name.ends_with("_bucket") || series.name.ends_with("_count");
            let is_count = *value >= 0.0 && value.fract() == 0.0;
            assert!(!counts || is_count, "{series:?} is {value}");
            if self.kind == "histogram" && series.name.ends_with("_count") {
                self.check_buckets(name, &series.labels, *value);
            }
        }
    }

    fn check_buckets(&self, name: &str, labels: &BTreeMap<String, String>, count: f64) {
        let bucket = |series: &Series| {
            let mut others = series.labels.clone();
            let bound = others.remove("le")?;
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().expect("a bound")
            };
            (others == *labels).then_some(bound)
        };
        let mut buckets: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter_map(|(series, value)| Some((bucket(series)?, *value)))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}{labels:?}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}{labels:?}");
        assert!(buckets.len() > 2, "{name}{labels:?} has no buckets of its own");
    }
}

/// Reads `name="value",…}` and returns what follows.
fn labels<'a>(mut rest: &'a str, line: &str) -> (BTreeMap<String, String>, &'a str) {
    let mut labels = BTreeMap::new();
    loop {
        let (name, quoted) = rest.split_once("=\"").expect(line);
        assert!(is_name(name) && !name.contains(':'), "{line}");
        let (value, after) = unquoted(quoted, line);
        let before = labels.insert(name.to_owned(), value);
        assert!(before.is_none(), "a label twice: {line}");
        if let Some(after) = after.strip_prefix('}') {
            return (labels, after);
        }
        rest = after.strip_prefix(',').expect(line);
    }
}

/// Reads to the closing quotation mark and returns what follows.
fn unquoted<'a>(quoted: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => panic!("an unknown escape: {line}"),
            },
            _ => value.push(character),
        }
    }
    panic!("a value without an end: {line}");
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    name.bytes().all(is_part) && name.starts_with(|first: char| !first.is_ascii_digit())
}
