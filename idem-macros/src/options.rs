//! The attribute's options: one table from names to what they take, mean and set.
//!
//! Parsing is neutral: `name = expression`, any name, any expression. Validating looks each name up in the table and
//! collects every error on the token at fault. Does not know the handler; whether an expression names its arguments
//! is `handler`'s.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Error, Expr, Ident, Result, Token};

use crate::suggest;
use crate::values::{boolean, duration, expression, header, non_empty, one_of};

/// What an author chose, validated.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) ttl: Duration,
    pub(crate) scope: Scope,
    pub(crate) key: Option<Expr>,
    pub(crate) header: Option<String>,
    pub(crate) required: Option<bool>,
    pub(crate) name: Option<String>,
    pub(crate) lease: Option<Duration>,
    pub(crate) in_flight: InFlight,
    pub(crate) wait: Option<Duration>,
    pub(crate) refuse_after_crash: bool,
    pub(crate) run_in_outage: bool,
}

/// What a duplicate gets while the first one runs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum InFlight {
    #[default]
    Reject,
    Wait,
    Accept,
}

/// Who owns the key space.
pub(crate) enum Scope {
    /// With the word that says so, where there is one.
    Global(Option<Ident>),
    Of(Expr),
}

impl Default for Scope {
    fn default() -> Self {
        Self::Global(None)
    }
}

/// One row of the table.
struct Spec {
    name: &'static str,
    /// Completes "`name` takes …".
    takes: &'static str,
    read: fn(&mut Options, &Expr) -> std::result::Result<(), String>,
    /// For an option that must be there: what it says, and what to write.
    missing: Option<(&'static str, &'static str)>,
}

const OPTIONS: [Spec; 11] = [
    Spec {
        name: "ttl",
        takes: "a duration, such as \"24h\" or \"1h 30m\"",
        read: |options, value| set(&mut options.ttl, duration(value, MAX_TTL)),
        missing: Some(("how long a completed answer is replayed", "`ttl = \"24h\"`")),
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
    },
    Spec {
        name: "key",
        takes: "an expression over the handler's arguments",
        read: |options, value| set(&mut options.key, expression(value).map(Some)),
        missing: None,
    },
    Spec {
        name: "header",
        takes: "the name of a header, such as \"Idempotency-Key\"",
        read: |options, value| set(&mut options.header, header(value).map(Some)),
        missing: None,
    },
    Spec {
        name: "required",
        takes: "`true` or `false`",
        read: |options, value| set(&mut options.required, boolean(value).map(Some)),
        missing: None,
    },
    Spec {
        name: "name",
        takes: "a name for the operation that stays when routes change, such as \"place-order\"",
        read: |options, value| set(&mut options.name, non_empty(value).map(Some)),
        missing: None,
    },
    Spec {
        name: "lease",
        takes: "a duration, such as \"30s\"",
        read: |options, value| set(&mut options.lease, duration(value, MAX_LEASE).map(Some)),
        missing: None,
    },
    Spec {
        name: "in_flight",
        takes: "\"reject\", \"wait\" or \"accept\"",
        read: |options, value| {
            let words = [
                ("reject", InFlight::Reject),
                ("wait", InFlight::Wait),
                ("accept", InFlight::Accept),
            ];
            set(&mut options.in_flight, one_of(value, &words))
        },
        missing: None,
    },
    Spec {
        name: "wait",
        takes: "a duration, such as \"10s\"",
        read: |options, value| set(&mut options.wait, duration(value, MAX_WAIT).map(Some)),
        missing: None,
    },
    Spec {
        name: "after_crash",
        takes: "\"rerun\" or \"refuse\"",
        read: |options, value| {
            set(
                &mut options.refuse_after_crash,
                one_of(value, &[("rerun", false), ("refuse", true)]),
            )
        },
        missing: None,
    },
    Spec {
        name: "on_outage",
        takes: "\"refuse\" or \"run\"",
        read: |options, value| {
            set(
                &mut options.run_in_outage,
                one_of(value, &[("refuse", false), ("run", true)]),
            )
        },
        missing: None,
    },
];

/// Pairs of options of which only one has a meaning, and why.
const CONFLICTS: [(&str, &str, &str); 2] = [
    ("key", "header", "a natural key is not read from a header"),
    ("key", "required", "a natural key is always there"),
];

/// As `idem_core::Policy` has them; it checks again where the expansion is compiled.
const MAX_TTL: Duration = Duration::from_hours(24 * 3650);
const MAX_LEASE: Duration = Duration::from_hours(24);
/// Longer than any client waits for an answer.
const MAX_WAIT: Duration = Duration::from_hours(1);

/// `name = value`, before anything is known about it.
struct Setting {
    name: Ident,
    value: Expr,
}

/// Reads and validates the attribute's tokens; the error combines all that were found.
pub(crate) fn parse(all: &TokenStream) -> Result<Options> {
    let mut errors = Errors::default();
    let settings = (|input: ParseStream| Ok(settings(input, &mut errors))).parse2(all.clone())?;
    let mut options = Options::default();
    for (index, setting) in settings.iter().enumerate() {
        let written = setting.name.unraw().to_string();
        let Some(spec) = OPTIONS.iter().find(|spec| spec.name == written) else {
            errors.push_unknown(&setting.name);
            continue;
        };
        if settings[..index]
            .iter()
            .any(|earlier| earlier.name.unraw() == setting.name.unraw())
        {
            let message = format!("`{written}` is given twice; remove one of the two");
            errors.push(Error::new(setting.name.span(), message));
            continue;
        }
        if let Err(why) = (spec.read)(&mut options, &setting.value) {
            let message = format!("`{written}` takes {}; {why}", spec.takes);
            errors.push(Error::new_spanned(&setting.value, message));
        }
    }
    conflicts(&settings, &mut errors);
    if let Some(wait) = settings.iter().find(|setting| setting.name.unraw() == "wait")
        && options.in_flight != InFlight::Wait
    {
        let message = "nobody waits; write `in_flight = \"wait\"` beside it, or remove `wait`";
        errors.push(Error::new(wait.name.span(), message));
    }
    for spec in &OPTIONS {
        if let Some((says, write)) = spec.missing
            && !errors.meant.contains(&spec.name)
        {
            let message = format!("`{}` is missing: it says {says}; write {write}", spec.name);
            errors.push(if all.is_empty() {
                Error::new(Span::call_site(), message)
            } else {
                Error::new_spanned(all, message)
            });
        }
    }
    errors.finish(options)
}

/// Every error of the attribute, and every option that was named or meant: none of those is called missing as well,
/// whatever is wrong with it.
#[derive(Default)]
struct Errors {
    all: Option<Error>,
    meant: Vec<&'static str>,
}

impl Errors {
    fn push(&mut self, error: Error) {
        match &mut self.all {
            None => self.all = Some(error),
            Some(all) => all.combine(error),
        }
    }

    fn push_unknown(&mut self, name: &Ident) {
        let written = name.unraw().to_string();
        let known = || OPTIONS.iter().map(|spec| spec.name);
        let meant = suggest::closest(&written, known());
        self.meant.extend(meant);
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the options are {}", suggest::list(known())),
        };
        self.push(Error::new(name.span(), format!("unknown option `{written}`; {help}")));
    }

    fn finish<T>(self, value: T) -> Result<T> {
        match self.all {
            None => Ok(value),
            Some(error) => Err(error),
        }
    }
}

/// The settings that could be read; after one that could not, reading goes on behind the next comma.
fn settings(input: ParseStream, errors: &mut Errors) -> Vec<Setting> {
    let mut settings = Vec::new();
    while !input.is_empty() {
        match setting(input, errors) {
            Ok(setting) => settings.push(setting),
            Err(broken) => {
                match broken {
                    Broken::Unknown(name) => errors.push_unknown(&name),
                    Broken::Error(error) => errors.push(error),
                }
                while !input.is_empty() && !input.peek(Token![,]) {
                    let _skipped: Result<TokenTree> = input.parse();
                }
            }
        }
        if !input.is_empty()
            && let Err(error) = input.parse::<Token![,]>()
        {
            errors.push(Error::new(error.span(), "expected a comma before the next option"));
            while !input.is_empty() && input.parse::<Token![,]>().is_err() {
                let _skipped: Result<TokenTree> = input.parse();
            }
        }
    }
    settings
}

/// Why there is no setting.
enum Broken {
    Unknown(Ident),
    Error(Error),
}

fn setting(input: ParseStream, errors: &mut Errors) -> std::result::Result<Setting, Broken> {
    let error = |span, message: String| Err(Broken::Error(Error::new(span, message)));
    let Ok(name) = input.call(Ident::parse_any) else {
        return error(input.span(), "expected an option, such as `ttl = \"24h\"`".into());
    };
    let spec = OPTIONS.iter().find(|spec| name.unraw() == spec.name);
    errors.meant.extend(spec.map(|spec| spec.name));
    let takes = spec.map_or("a value", |spec| spec.takes);
    let Ok(equals) = input.parse::<Token![=]>() else {
        return match spec {
            Some(_) => error(name.span(), format!("`{name}` takes {takes}; write `{name} = …`")),
            None => Err(Broken::Unknown(name)),
        };
    };
    if input.is_empty() || input.peek(Token![,]) {
        return error(
            equals.span,
            format!("`{name}` takes {takes}; there is none after the `=`"),
        );
    }
    let value = input.parse().map_err(Broken::Error)?;
    Ok(Setting { name, value })
}

/// Reports the second of two options that do not go together.
fn conflicts(settings: &[Setting], errors: &mut Errors) {
    for (one, other, why) in CONFLICTS {
        let given: Vec<_> = [one, other]
            .into_iter()
            .filter_map(|name| settings.iter().position(|setting| setting.name.unraw() == name))
            .collect();
        if let [left, right] = given[..] {
            let (first, second) = (&settings[left.min(right)].name, &settings[left.max(right)].name);
            let message = format!("`{second}` does not go with `{first}`: {why}; remove one of the two");
            errors.push(Error::new(second.span(), message));
        }
    }
}

fn set<T>(slot: &mut T, value: std::result::Result<T, String>) -> std::result::Result<(), String> {
    *slot = value?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_of_the_attribute_has_a_row_for_every_option_and_no_other() {
        let rows: Vec<_> = include_str!("lib.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("/// | `")?.split_once('`'))
            .map(|(name, _)| name)
            .collect();
        let names: Vec<_> = OPTIONS.iter().map(|spec| spec.name).collect();
        assert_eq!(rows, names);
    }
}
