//! Converting the expression behind an option's `=` to a value.
//!
//! Owns the syntax of values, and the error for each that is wrong. Does not own which option takes which kind of value: `table`.

use std::time::Duration;

use syn::{Error, Expr, ExprLit, ExprPath, Lit, LitStr, Path};

use crate::{durations, sizes, suggest};

/// The same as in `idem_core::ClaimPolicy`. Backends count in milliseconds.
const MIN: Duration = Duration::from_millis(100);

/// The same as in `idem_axum`'s policy. An answer is held in memory while it is copied, and in the backend until `ttl`.
const MAX_SIZE: usize = 64 * 1024 * 1024;

fn string(value: &Expr) -> Option<&LitStr> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text), ..
        }) => Some(text),
        _ => None,
    }
}

/// The text in quotes; `None` if the expression is not a string literal.
pub(crate) fn word(value: &Expr) -> Option<String> {
    string(value).map(LitStr::value)
}

/// An expression, quoted or not.
pub(crate) fn expression(value: &Expr) -> Result<Expr, String> {
    match string(value) {
        None => Ok(value.clone()),
        Some(text) => text.parse().map_err(|error: Error| match text.value().trim() {
            "" => "this is empty".to_owned(),
            _ => format!("this is none: {error}"),
        }),
    }
}

/// A path, quoted or not.
pub(crate) fn path(value: &Expr) -> Result<Path, String> {
    match expression(value)? {
        Expr::Path(ExprPath { qself: None, path, .. })
            if path.segments.iter().all(|segment| segment.arguments.is_none()) =>
        {
            Ok(path)
        }
        _ => Err("this is none".into()),
    }
}

pub(crate) fn duration(value: &Expr, max: Duration) -> Result<Duration, String> {
    let text = string(value).ok_or("write it in quotes and with a unit")?.value();
    let duration =
        durations::parse(&text).map_err(|why| format!("{why}; the units are `ms`, `s`, `m`, `h` and `d`"))?;
    match duration {
        Duration::ZERO => Err("zero is none".into()),
        short if short < MIN => Err("the shortest is \"100ms\"".into()),
        long if long > max => Err(format!("the longest is \"{}h\"", max.as_secs() / 3600)),
        duration => Ok(duration),
    }
}

pub(crate) fn size(value: &Expr) -> Result<usize, String> {
    let text = string(value).ok_or("write it in quotes and with a unit")?.value();
    match sizes::parse(&text)? {
        0 => Err("zero would store no answer that has a body; the smallest is \"1B\"".into()),
        large if large > MAX_SIZE => Err("the largest is \"64MiB\"".into()),
        size => Ok(size),
    }
}

/// A whole number above zero.
pub(crate) fn count(value: &Expr) -> Result<u32, String> {
    let Expr::Lit(ExprLit {
        lit: Lit::Int(digits), ..
    }) = value
    else {
        return Err("write it in digits, without quotes".into());
    };
    match digits.base10_parse() {
        Ok(0) => Err("with zero attempts nothing would run; the smallest is `1`".into()),
        Ok(count) => Ok(count),
        Err(_) => Err(format!("the largest is `{}`", u32::MAX)),
    }
}

/// A header name, in lower case.
pub(crate) fn header(value: &Expr) -> Result<String, String> {
    let name = non_empty(value)?.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match name.bytes().find(|byte| !is_token(*byte)) {
        None => Ok(name),
        Some(_) => Err(format!("`{name}` has a character that header names cannot have")),
    }
}

pub(crate) fn boolean(value: &Expr) -> Result<bool, String> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Bool(value), ..
        }) => Ok(value.value),
        _ => Err("write one of the two, without quotes".into()),
    }
}

/// One of some quoted words.
pub(crate) fn one_of<T: Copy>(value: &Expr, words: &[(&str, T)]) -> Result<T, String> {
    let written = string(value).ok_or("write one of them, in quotes")?.value();
    let known = || words.iter().map(|(word, _)| *word);
    match words.iter().find(|(word, _)| *word == written) {
        Some((_, meaning)) => Ok(*meaning),
        None => Err(match suggest::closest(&written, known()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("\"{written}\" is none of them"),
        }),
    }
}

pub(crate) fn non_empty(value: &Expr) -> Result<String, String> {
    match string(value).map(LitStr::value) {
        None => Err("write it in quotes".into()),
        Some(text) if text.trim().is_empty() => Err("this is empty".into()),
        Some(text) => Ok(text),
    }
}
