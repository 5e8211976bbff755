//! Reads the attribute's tokens against the table of options.
//!
//! Owns both steps. Parsing is neutral: `name = expression`, any name, any expression. Validation looks each name up in the table
//! and collects every error on the token at fault. Does not own whether an expression uses the handler's arguments: `handler`.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Error, Expr, Ident, Result, Token};

use crate::suggest;
use crate::table::{CONFLICTS, Fingerprint, Form, OPTIONS, Options, REFUSE, Spec, TASK_REQUIRES, WAIT};

/// `name = value`, before validation.
struct Setting {
    name: Ident,
    value: Expr,
}

/// The options of a form.
fn known(form: Form) -> impl Iterator<Item = &'static Spec> {
    OPTIONS
        .iter()
        .filter(move |spec| spec.only.is_none_or(|(only, _)| only == form))
}

/// Parses and validates the attribute's tokens. The error combines all errors.
pub(crate) fn parse(all: &TokenStream, form: Form) -> Result<Options> {
    let mut errors = Errors {
        form,
        ..Errors::default()
    };
    let settings = (|input: ParseStream| Ok(settings(input, &mut errors))).parse2(all.clone())?;
    let mut options = Options {
        form,
        ..Options::default()
    };
    for (index, setting) in settings.iter().enumerate() {
        read(setting, &settings[..index], &mut options, &mut errors);
    }
    if form == Form::Handler {
        conflicts(&settings, &mut errors);
    }
    if let Some(wait) = settings.iter().find(|setting| setting.name.unraw() == "wait")
        && options.in_flight.is_some_and(|in_flight| in_flight != WAIT)
    {
        let message = "duplicates do not wait here; write `in_flight = \"wait\"`, or remove `wait`";
        errors.push(Error::new(wait.name.span(), message));
    }
    if options.after_crash == Some(REFUSE) {
        for bound in ["rerun_within", "max_attempts"] {
            conflict(&settings, ["after_crash", bound], NOTHING_RUNS_AGAIN, &mut errors);
        }
    }
    if form == Form::Task {
        words_of_handlers(&settings, &options, &mut errors);
    }
    for (name, says, write) in required(form) {
        if !errors.meant.contains(&name) {
            let message = format!("`{name}` is missing: it says {says}; write {write}");
            errors.push(if all.is_empty() {
                Error::new(Span::call_site(), message)
            } else {
                Error::new_spanned(all, message)
            });
        }
    }
    errors.finish(options)
}

/// Reads a setting into the options, or reports what is wrong with it.
fn read(setting: &Setting, earlier: &[Setting], options: &mut Options, errors: &mut Errors) {
    let written = setting.name.unraw().to_string();
    let error = |message| Error::new(setting.name.span(), message);
    let Some(spec) = OPTIONS.iter().find(|spec| spec.name == written) else {
        errors.push_unknown(&setting.name);
        return;
    };
    if let Some((only, instead)) = spec.only
        && only != options.form
    {
        errors.push(error(format!("`{written}` has no meaning here: {instead}")));
    } else if earlier
        .iter()
        .any(|earlier| earlier.name.unraw() == setting.name.unraw())
    {
        errors.push(error(format!("`{written}` is given twice; remove one of the two")));
    } else if let Err(why) = (spec.read)(options, &setting.value) {
        let message = format!("`{written}` takes {}; {why}", spec.takes);
        errors.push(Error::new_spanned(&setting.value, message));
    }
}

/// The options that a form requires, what each says, and what to write.
fn required(form: Form) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let of_all = OPTIONS.iter().filter_map(|spec| {
        let (says, write) = spec.missing?;
        Some((spec.name, says, write))
    });
    let of_task = TASK_REQUIRES.into_iter().filter(move |_| form == Form::Task);
    of_all.chain(of_task)
}

/// Reports the words that have a meaning only for a request.
fn words_of_handlers(settings: &[Setting], options: &Options, errors: &mut Errors) {
    let mut refuse = |option: &str, message: &str| {
        if let Some(setting) = settings.iter().find(|setting| setting.name.unraw() == option) {
            errors.push(Error::new_spanned(&setting.value, message));
        }
    };
    if options.in_flight == Some("Accept") {
        refuse(
            "in_flight",
            "a task answers no request, so there is no 202; write \"reject\" or \"wait\"",
        );
    }
    if matches!(options.fingerprint, Some(Fingerprint::Word("Request"))) {
        refuse(
            "fingerprint",
            "a task has no request; name the value that is compared, such as `fingerprint = order`",
        );
    }
}

/// Every error of the attribute, and every option that was named or meant. A required option that was named wrongly is not
/// reported as missing as well.
#[derive(Default)]
struct Errors {
    all: Option<Error>,
    meant: Vec<&'static str>,
    form: Form,
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
        let known = || known(self.form).map(|spec| spec.name);
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

/// The settings that could be parsed. After an error, parsing continues behind the next comma.
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

/// The error in the place of a setting.
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
    let value = input.parse().map(without_invisible).map_err(Broken::Error)?;
    Ok(Setting { name, value })
}

/// The expression that a `macro_rules!` variable holds, or the one that was written.
fn without_invisible(expr: Expr) -> Expr {
    match expr {
        Expr::Group(group) => without_invisible(*group.expr),
        expr => expr,
    }
}

/// Why bounds on reruns have no meaning under `after_crash = "refuse"`.
const NOTHING_RUNS_AGAIN: &str = "with `after_crash = \"refuse\"` nothing runs again";

/// Reports the options that never go together.
fn conflicts(settings: &[Setting], errors: &mut Errors) {
    for (one, other, why) in CONFLICTS {
        conflict(settings, [one, other], why, errors);
    }
}

/// Reports the second of two options that do not go together, if both are given.
fn conflict(settings: &[Setting], options: [&str; 2], why: &str, errors: &mut Errors) {
    let given: Vec<_> = options
        .into_iter()
        .filter_map(|name| settings.iter().position(|setting| setting.name.unraw() == name))
        .collect();
    if let [left, right] = given[..] {
        let (first, second) = (&settings[left.min(right)].name, &settings[left.max(right)].name);
        let message = format!("`{second}` does not go with `{first}`: {why}; remove one of the two");
        errors.push(Error::new(second.span(), message));
    }
}
