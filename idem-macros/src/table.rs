//! The attribute's options: one table with the name, the values, the meaning and the setter of each.
//!
//! Owns names, conflicts and help texts. Does not own the syntax of values: `values`.

use std::time::Duration;

use syn::{Expr, Ident, Path};

use crate::values::{boolean, count, duration, expression, header, non_empty, one_of, path, size, word};

/// What an attribute is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// A handler of HTTP.
    #[default]
    Handler,
    /// A task.
    Task,
}

/// The author's validated settings. `None` means that the author left the option out.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) form: Form,
    pub(crate) ttl: Duration,
    pub(crate) scope: Scope,
    pub(crate) key: Option<Expr>,
    pub(crate) header: Option<String>,
    pub(crate) required: Option<bool>,
    pub(crate) name: Option<String>,
    pub(crate) lease: Option<Duration>,
    pub(crate) in_flight: Option<Variant>,
    pub(crate) wait: Option<Duration>,
    pub(crate) after_crash: Option<Variant>,
    pub(crate) rerun_within: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) max_run: Option<Duration>,
    pub(crate) store: Option<Variant>,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) on_outage: Option<Variant>,
    pub(crate) max_response: Option<usize>,
    pub(crate) max_result: Option<usize>,
    pub(crate) engine: Option<Expr>,
    pub(crate) root: Option<Path>,
}

/// The variant that a word stands for, in the enum of its option.
pub(crate) type Variant = &'static str;

/// The variant of `in_flight` under which duplicates wait.
pub(crate) const WAIT: Variant = "Wait";

/// The variant of `after_crash` under which nothing runs again.
pub(crate) const REFUSE: Variant = "Refuse";

/// The part of a request that is compared.
pub(crate) enum Fingerprint {
    Word(Variant),
    Of(Expr),
}

/// The owner of the key space.
pub(crate) enum Scope {
    /// With the token `global`, if it was written.
    Global(Option<Ident>),
    Of(Expr),
}

impl Default for Scope {
    fn default() -> Self {
        Self::Global(None)
    }
}

/// One row of the table.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Completes "`name` takes …".
    pub(crate) takes: &'static str,
    pub(crate) read: fn(&mut Options, &Expr) -> Result<(), String>,
    /// For an option that every form requires: the error if it is missing, and what to write.
    pub(crate) missing: Option<(&'static str, &'static str)>,
    /// What other forms do in place of an option that they do not have.
    pub(crate) only: Option<(Form, &'static str)>,
}

/// What a task requires beside: the option, the error if it is missing, and what to write.
pub(crate) const TASK_REQUIRES: [(&str, &str, &str); 3] = [
    (
        "key",
        "what tells a message from every other one",
        "`key = order.id` over an argument",
    ),
    ("name", "what the task is called in stored keys", "`name = \"ship\"`"),
    ("engine", "where its records are", "`engine = app.engine`"),
];

pub(crate) const OPTIONS: [Spec; 20] = [
    Spec {
        name: "ttl",
        takes: "a duration, such as \"24h\" or \"1h 30m\"",
        read: |options, value| set(&mut options.ttl, duration(value, MAX_TTL)),
        missing: Some(("how long a completed answer is replayed", "`ttl = \"24h\"`")),
        only: None,
    },
    Spec {
        name: "scope",
        takes: "an expression over the handler's arguments, or `global`",
        read: |options, value| {
            let expr = expression(value)?;
            options.scope = match &expr {
                Expr::Path(path) if path.path.is_ident("global") => Scope::Global(path.path.get_ident().cloned()),
                _ => Scope::Of(expr),
            };
            Ok(())
        },
        missing: Some((
            "who owns the key space",
            "`scope = \"tenant\"` over an argument, or `scope = global` if all callers share one",
        )),
        only: None,
    },
    Spec {
        name: "key",
        takes: "an expression over the handler's arguments",
        read: |options, value| set(&mut options.key, expression(value).map(Some)),
        missing: None,
        only: None,
    },
    Spec {
        name: "header",
        takes: "the name of a header, such as \"Idempotency-Key\"",
        read: |options, value| set(&mut options.header, header(value).map(Some)),
        missing: None,
        only: Some((Form::Handler, "a task takes its key from `key`")),
    },
    Spec {
        name: "required",
        takes: "`true` or `false`",
        read: |options, value| set(&mut options.required, boolean(value).map(Some)),
        missing: None,
        only: Some((Form::Handler, "a task always has a key")),
    },
    Spec {
        name: "name",
        takes: "a name for the operation that stays when routes change, such as \"place-order\"",
        read: |options, value| {
            let name = non_empty(value).and_then(|name| of_handlers_alone(name, options.form));
            set(&mut options.name, name.map(Some))
        },
        missing: None,
        only: None,
    },
    Spec {
        name: "lease",
        takes: "a duration, such as \"30s\"",
        read: |options, value| set(&mut options.lease, duration(value, MAX_LEASE).map(Some)),
        missing: None,
        only: None,
    },
    Spec {
        name: "in_flight",
        takes: "\"reject\", \"wait\" or \"accept\"",
        read: |options, value| {
            let words = [("reject", "Reject"), ("wait", WAIT), ("accept", "Accept")];
            set(&mut options.in_flight, one_of(value, &words).map(Some))
        },
        missing: None,
        only: None,
    },
    Spec {
        name: "wait",
        takes: "a duration, such as \"10s\"",
        read: |options, value| set(&mut options.wait, duration(value, MAX_WAIT).map(Some)),
        missing: None,
        only: None,
    },
    Spec {
        name: "after_crash",
        takes: "\"rerun\" or \"refuse\"",
        read: |options, value| {
            let words = [("rerun", "Rerun"), ("refuse", REFUSE)];
            set(&mut options.after_crash, one_of(value, &words).map(Some))
        },
        missing: None,
        only: None,
    },
    Spec {
        name: "rerun_within",
        takes: "a duration, such as \"20h\"",
        read: |options, value| set(&mut options.rerun_within, duration(value, MAX_TTL).map(Some)),
        missing: None,
        only: None,
    },
    Spec {
        name: "max_attempts",
        takes: "a whole number, such as `5`",
        read: |options, value| set(&mut options.max_attempts, count(value).map(Some)),
        missing: None,
        only: None,
    },
    Spec {
        name: "max_run",
        takes: "a duration, such as \"10m\"",
        read: |options, value| set(&mut options.max_run, duration(value, MAX_TTL).map(Some)),
        missing: None,
        only: None,
    },
    Spec {
        name: "store",
        takes: "\"final\", \"success\" or \"all\"",
        read: |options, value| {
            let words = [("final", "Final"), ("success", "Success"), ("all", "All")];
            set(&mut options.store, one_of(value, &words).map(Some))
        },
        missing: None,
        only: Some((Form::Handler, "the verdict of a task's error says whether it is kept")),
    },
    Spec {
        name: "fingerprint",
        takes: "\"request\", \"none\" or an expression over the handler's arguments",
        read: |options, value| {
            let fingerprint = match word(value).as_deref() {
                Some("request") => Fingerprint::Word("Request"),
                Some("none") => Fingerprint::Word("Nothing"),
                _ => Fingerprint::Of(expression(value)?),
            };
            options.fingerprint = Some(fingerprint);
            Ok(())
        },
        missing: None,
        only: None,
    },
    Spec {
        name: "on_outage",
        takes: "\"refuse\" or \"run\"",
        read: |options, value| {
            let words = [("refuse", "Refuse"), ("run", "Run")];
            set(&mut options.on_outage, one_of(value, &words).map(Some))
        },
        missing: None,
        only: None,
    },
    Spec {
        name: "max_response",
        takes: "a size, such as \"1MiB\"",
        read: |options, value| set(&mut options.max_response, size(value).map(Some)),
        missing: None,
        only: Some((Form::Handler, "a task has `max_result`")),
    },
    Spec {
        name: "max_result",
        takes: "a size, such as \"64KiB\"",
        read: |options, value| set(&mut options.max_result, size(value).map(Some)),
        missing: None,
        only: Some((Form::Task, "a handler has `max_response`")),
    },
    Spec {
        name: "engine",
        takes: "an expression over the handler's arguments that has an `Idempotency`, such as `app.idempotency`",
        read: |options, value| set(&mut options.engine, expression(value).map(Some)),
        missing: None,
        only: None,
    },
    Spec {
        name: "crate",
        takes: "the path at which `idem_axum` is found, such as `::my_idem`",
        read: |options, value| set(&mut options.root, path(value).map(Some)),
        missing: None,
        only: None,
    },
];

/// Pairs of options that conflict, and why.
pub(crate) const CONFLICTS: [(&str, &str, &str); 2] = [
    ("key", "header", "a natural key is not read from a header"),
    ("key", "required", "a natural key is always there"),
];

/// The same limits as in `idem_core::ClaimPolicy`, which checks them again when the expansion is compiled.
const MAX_TTL: Duration = Duration::from_hours(24 * 3650);
const MAX_LEASE: Duration = Duration::from_hours(24);
/// Longer than any client waits for an answer.
const MAX_WAIT: Duration = Duration::from_hours(1);

fn set<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    *slot = value?;
    Ok(())
}

/// The name of a handler does not begin as those of tasks and layers do, whose records it would share.
fn of_handlers_alone(name: String, form: Form) -> Result<String, String> {
    match ["task ", "layer "].into_iter().find(|prefix| name.starts_with(prefix)) {
        Some(prefix) if form == Form::Handler => {
            Err(format!("a name that begins with \"{prefix}\" is that of a {prefix}")
                .trim_end()
                .into())
        }
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_does_not_take_the_name_of_a_task_or_a_layer() {
        for name in ["task ship", "layer GET /"] {
            assert!(of_handlers_alone(name.to_owned(), Form::Handler).is_err());
            assert!(of_handlers_alone(name.to_owned(), Form::Task).is_ok());
        }
        assert!(of_handlers_alone("tasks".to_owned(), Form::Handler).is_ok());
    }

    fn names(is_of: impl Fn(Option<Form>) -> bool) -> Vec<&'static str> {
        let known = OPTIONS.iter().filter(|spec| is_of(spec.only.map(|(form, _)| form)));
        known.map(|spec| spec.name).collect()
    }

    fn of_handlers() -> Vec<&'static str> {
        names(|only| only != Some(Form::Task))
    }

    #[test]
    fn the_documentation_of_the_attribute_on_tasks_has_a_row_for_every_option_and_no_other() {
        let rows = include_str!("../TASKS.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let rows: Vec<_> = rows.map(|(name, _)| name).collect();
        assert_eq!(rows, names(|only| only != Some(Form::Handler)));
    }

    #[test]
    fn the_documentation_of_the_attribute_has_a_row_for_every_option_and_no_other() {
        let rows: Vec<_> = include_str!("lib.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("/// | `")?.split_once('`'))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(rows, of_handlers());
    }

    #[test]
    fn every_option_has_an_example_that_uses_it() {
        let sections = include_str!("../OPTIONS.md").split("\n## `").skip(1);
        let sections: Vec<_> = sections.filter_map(|section| section.split_once('`')).collect();
        let names: Vec<_> = sections.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, of_handlers());
        for (name, section) in sections {
            let example = section.split("```").nth(1).unwrap_or_default();
            assert!(example.contains(&format!("{name} = ")), "{name}");
        }
    }
}
