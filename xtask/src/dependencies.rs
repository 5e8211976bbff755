//! Which crate may use which: dependencies point one way.
//!
//! Owns the rules. A crate that uses what it must not fails `cargo xtask lint`.

use std::collections::BTreeSet;

use crate::commands::output_of_cargo;

/// What one crate may use.
struct Rule {
    name: &'static str,
    /// The crates of this workspace that it may name in its manifest.
    ours: &'static [&'static str],
    /// What must not be among its dependencies, nor among theirs.
    never: &'static [&'static [&'static str]],
    /// What may be among them all the same, if a feature brings it that is off by default.
    on_request: &'static [&'static str],
}

/// Servers, frameworks and clients of servers.
const SERVERS: &[&str] = &[
    "axum",
    "axum-core",
    "hyper",
    "redis",
    "reqwest",
    "sqlx",
    "sqlx-core",
    "tower",
    "tower-http",
];

/// The types of HTTP, and of services that speak it.
const HTTP: &[&str] = &["http", "http-body", "tower-service"];

const RULES: [Rule; 17] = [
    Rule {
        name: "idem-macros",
        ours: &[],
        never: &[SERVERS, HTTP],
        on_request: &[],
    },
    Rule {
        name: "idem-core",
        ours: &[],
        never: &[SERVERS, HTTP],
        on_request: &[],
    },
    Rule {
        name: "idem-http",
        ours: &["idem-core"],
        never: &[SERVERS],
        // Traits and no framework: `Verdict` is this crate's, so no other crate can implement the one of axum's response parts.
        on_request: &["axum-core"],
    },
    Rule {
        name: "idem-redis",
        ours: &["idem-core"],
        never: &[&["axum", "axum-core", "sqlx-core"]],
        on_request: &[],
    },
    Rule {
        name: "idem-postgres",
        ours: &["idem-core"],
        never: &[&["axum", "axum-core", "redis", "sqlx-sqlite"]],
        on_request: &[],
    },
    Rule {
        name: "idem-sqlite",
        ours: &["idem-core"],
        never: &[&["axum", "axum-core", "redis", "sqlx-postgres"]],
        on_request: &[],
    },
    Rule {
        name: "idem-sql",
        ours: &["idem-core", "idem-postgres", "idem-sqlite"],
        never: &[&["axum", "axum-core", "redis"], HTTP],
        on_request: &[],
    },
    Rule {
        name: "idem-task",
        ours: &[
            "idem-core",
            "idem-macros",
            "idem-postgres",
            "idem-redis",
            "idem-sql",
            "idem-sqlite",
        ],
        never: &[&["axum", "axum-core"], HTTP],
        on_request: &[],
    },
    Rule {
        name: "idem-axum",
        ours: &[
            "idem-core",
            "idem-http",
            "idem-macros",
            "idem-postgres",
            "idem-redis",
            "idem-sql",
            "idem-sqlite",
        ],
        never: &[],
        on_request: &[],
    },
    Rule {
        name: "idem-cli",
        ours: &["idem-core", "idem-http", "idem-postgres", "idem-redis", "idem-sqlite"],
        never: &[&["axum", "axum-core", "tower", "tower-http"]],
        on_request: &[],
    },
    Rule {
        name: "shipping",
        ours: &["idem-axum"],
        never: &[],
        on_request: &[],
    },
    Rule {
        name: "fulfilment",
        ours: &["idem-task"],
        never: &[],
        on_request: &[],
    },
    Rule {
        name: "payments",
        ours: &["idem-axum"],
        never: &[],
        on_request: &[],
    },
    Rule {
        name: "proxy",
        ours: &["idem-axum"],
        never: &[],
        on_request: &[],
    },
    Rule {
        name: "sql-clients",
        ours: &["idem-axum"],
        never: &[],
        on_request: &[],
    },
    Rule {
        name: "consumers",
        ours: &["idem-task"],
        never: &[],
        on_request: &[],
    },
    Rule {
        name: "custom-backend",
        ours: &["idem-core"],
        never: &[SERVERS, HTTP],
        on_request: &[],
    },
];

/// Fails with every crate that uses what it must not.
pub(crate) fn check() -> Result<(), String> {
    let mut faults = Vec::new();
    for rule in &RULES {
        let direct = tree(rule.name, &["--all-features", "--depth", "1"])?;
        let (by_default, all) = (tree(rule.name, &[])?, tree(rule.name, &["--all-features"])?);
        faults.extend(rule.faults(&direct, &by_default, &all));
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(faults.join("\n"))
}

impl Rule {
    /// What is wrong with a crate that has these dependencies. Among them and theirs are these with its default features, and
    /// these with all of its features.
    fn faults(&self, direct: &BTreeSet<String>, by_default: &BTreeSet<String>, all: &BTreeSet<String>) -> Vec<String> {
        let name = self.name;
        let is_foreign =
            |used: &&String| used.starts_with("idem-") && *used != name && !self.ours.contains(&used.as_str());
        let ours = direct.iter().filter(is_foreign);
        let ours = ours.map(|used| format!("{name} uses {used}: it may use {:?} of this workspace", self.ours));
        let never = all
            .iter()
            .filter(|used| self.never.iter().any(|never| never.contains(&used.as_str())))
            .filter(|used| by_default.contains(*used) || !self.on_request.contains(&used.as_str()));
        let never =
            never.map(|used| format!("{name} uses {used}, by itself or by another crate; see `cargo tree -i {used}`"));
        ours.chain(never).collect()
    }
}

/// The names of the crates that a package is made of, as its users build it.
fn tree(package: &str, arguments: &[&str]) -> Result<BTreeSet<String>, String> {
    let tree = ["tree", "--package", package, "--edges", "normal", "--prefix", "none"];
    Ok(names(&output_of_cargo(&[&tree, arguments].concat())?))
}

fn names(tree: &str) -> BTreeSet<String> {
    let words = tree.lines().filter_map(|line| line.split_whitespace().next());
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        name: "idem-http",
        ours: &["idem-core"],
        never: &[&["axum", "axum-core"]],
        on_request: &["axum-core"],
    };

    #[test]
    fn a_crate_that_uses_what_it_may_has_no_fault() {
        let used = names("idem-http v0.1.0 (/x)\nidem-core v0.1.0 (/y)\nhttp v1.5.0\n");
        assert!(RULE.faults(&used, &used, &used).is_empty());
    }

    #[test]
    fn a_crate_of_ours_that_is_not_listed_and_one_that_must_never_be_there_are_faults() {
        let direct = names("idem-http v0.1.0 (/x)\nidem-redis v0.1.0 (/y)\n");
        let all = names("idem-http v0.1.0 (/x)\nidem-redis v0.1.0 (/y)\naxum v0.8.9 (*)\n");
        let faults = RULE.faults(&direct, &all, &all);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].contains("idem-redis") && faults[1].contains("axum"),
            "{faults:?}"
        );
    }
    #[test]
    fn what_a_feature_brings_is_a_fault_where_it_is_there_without_the_feature() {
        let (without, with) = (names("idem-http v0.1.0 (/x)\n"), names("axum-core v0.5.6\n"));
        assert!(RULE.faults(&without, &without, &with).is_empty());
        let faults = RULE.faults(&without, &with, &with);
        assert!(
            matches!(&faults[..], [fault] if fault.contains("axum-core")),
            "{faults:?}"
        );
    }
}
