//! The annotated function: its parsed signature and its unparsed body.
//!
//! Owns which functions are accepted, and the names that their arguments bind. The body is never parsed, so that a half-typed
//! body passes through unchanged. Does not own the expansion: `expand`.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::visit_mut::VisitMut;
use syn::{
    Attribute, Error, Expr, ExprLit, ExprPath, FnArg, Ident, Lit, LitStr, Macro, Pat, PatIdent, PatType, Result,
    ReturnType, Signature, Type, Visibility,
};

use crate::suggest;

/// An `async fn` without a receiver.
pub(crate) struct Handler {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) arguments: Vec<PatType>,
    pub(crate) body: Group,
}

impl Parse for Handler {
    fn parse(input: ParseStream) -> Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature: Signature = input
            .parse()
            .map_err(|error| Error::new(error.span(), format!("`#[idempotent]` goes on an `async fn`; {error}")))?;
        let body = match input.parse()? {
            TokenTree::Group(body) => without_invisible(body),
            other => {
                return Err(Error::new(
                    other.span(),
                    "`#[idempotent]` goes on an `async fn` with a body",
                ));
            }
        };
        let mut errors = Vec::new();
        if signature.asyncness.is_none() {
            errors.push(Error::new(
                signature.fn_token.span,
                "an idempotent handler is async; write `async fn`",
            ));
        }
        if let ReturnType::Type(_, ty) = &signature.output
            && let Type::Never(never) = ty.as_ref()
        {
            let message = "a handler answers with a response, and `!` is none; write `Response`, or another type that \
                           is `IntoResponse`";
            errors.push(Error::new_spanned(never, message));
        }
        let arguments = arguments(&signature, &mut errors);
        match errors.into_iter().reduce(|mut all, error| {
            all.combine(error);
            all
        }) {
            Some(error) => Err(error),
            None => Ok(Self {
                attributes,
                visibility,
                signature,
                arguments,
                body,
            }),
        }
    }
}

/// The arguments of `signature`. Errors about arguments that a handler must not have are added to `errors`.
fn arguments(signature: &Signature, errors: &mut Vec<Error>) -> Vec<PatType> {
    let mut arguments = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Typed(argument) => {
                let conditional = argument.attrs.iter().find(|attribute| attribute.path().is_ident("cfg"));
                errors.extend(conditional.map(|attribute| {
                    let message = "an argument of an idempotent handler cannot be conditional; put the `cfg` on \
                                   two handlers";
                    Error::new_spanned(attribute, message)
                }));
                arguments.push(argument.clone());
            }
            FnArg::Receiver(receiver) => errors.push(Error::new_spanned(
                receiver,
                "a handler has no `self`; take what it needs as an argument, such as `State(app): State<App>`",
            )),
        }
    }
    arguments
}

impl Handler {
    /// Checks that no argument is called `global`, because `scope = global` does not mean that argument.
    pub(crate) fn check_global(&self, global: &Ident) -> Result<()> {
        if !self.bound().contains("global") {
            return Ok(());
        }
        let message = "this is the key space of all callers, and not the argument `global`; rename the argument";
        Err(Error::new_spanned(global, message))
    }

    fn bound(&self) -> BTreeSet<String> {
        self.arguments
            .iter()
            .flat_map(|argument| bound(&argument.pat))
            .collect()
    }

    /// Checks that `expr`, the value of `option`, uses at least one argument. Otherwise:
    ///
    /// - a scope would put all callers into one key space;
    /// - a key would put all requests into one record;
    /// - a fingerprint would compare nothing;
    /// - an engine is probably misspelt.
    pub(crate) fn check_names(&self, option: &str, expr: &Expr) -> Result<()> {
        let used = mentioned(expr);
        let bound = self.bound();
        let is_bound = |part: &&LitStr| bound.contains(&part.value());
        if let Some(part) = quoted_parts(expr).into_iter().find(is_bound) {
            let name = part.value();
            let message = format!(
                "in a tuple this is a text, the same for every request, and not the argument `{name}`; write `{name}` \
                 without quotes"
            );
            return Err(Error::new_spanned(part, message));
        }
        if used.iter().any(|name| bound.contains(name)) {
            return Ok(());
        }
        let names = || bound.iter().map(String::as_str);
        let meant = used.iter().find_map(|name| suggest::closest(name, names()));
        let word = used.iter().find_map(|name| suggest::closest(name, ["request", "none"]));
        let help = match (meant, option) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, "fingerprint") => match word {
                Some(word) => format!("did you mean `\"{word}\"`, in quotes?"),
                None => String::from("write `fingerprint = \"none\"` if requests are not compared"),
            },
            (None, "scope") => String::from("write `scope = global` if all callers share one key space"),
            (None, "engine") => String::from("without `engine` it is the router's layer"),
            (None, _) => String::from("every request would have the same key"),
        };
        let binds = suggest::list(names());
        let message = format!("this `{option}` names no argument of the handler, which binds {binds}; {help}");
        Err(Error::new_spanned(expr, message))
    }
}

/// The parts of a tuple that are in quotes. Quotes around a whole expression have no meaning.
fn quoted_parts(expr: &Expr) -> Vec<&LitStr> {
    let parts = match expr {
        Expr::Tuple(tuple) => tuple.elems.iter(),
        Expr::Paren(paren) => return quoted_parts(&paren.expr),
        Expr::Group(group) => return quoted_parts(&group.expr),
        _ => return Vec::new(),
    };
    let quoted = parts.map(|part| match part {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text), ..
        }) => vec![text],
        part => quoted_parts(part),
    });
    quoted.flatten().collect()
}

/// The names a pattern binds, sorted.
pub(crate) fn bound(pattern: &Pat) -> BTreeSet<String> {
    let names = names(pattern);
    names.iter().map(|name| name.unraw().to_string()).collect()
}

/// The name that a pattern binds, if it is a single one.
pub(crate) fn only_name(pattern: &Pat) -> Option<Ident> {
    match names(pattern).as_slice() {
        [name] => Some(name.clone()),
        _ => None,
    }
}

/// Whether this name in a pattern may be the name of a unit struct. Such a pattern binds nothing, and an argument of that name
/// would be a pattern of the same kind.
pub(crate) fn may_be_a_unit(name: &Ident, ty: &Type) -> bool {
    let is_type = matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == *name));
    is_type || name.unraw().to_string().starts_with(char::is_uppercase)
}

/// Each name that a pattern binds.
pub(crate) fn names(pattern: &Pat) -> Vec<Ident> {
    struct Names(Vec<Ident>);
    impl VisitMut for Names {
        fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
            self.0.push(pattern.ident.clone());
            syn::visit_mut::visit_pat_ident_mut(self, pattern);
        }
    }
    let mut names = Names(Vec::new());
    names.visit_pat_mut(&mut pattern.clone());
    names.0
}

/// Every name in `expr` that may be a local variable: paths of a single segment, and identifiers inside macros.
pub(crate) fn mentioned(expr: &Expr) -> BTreeSet<String> {
    struct Words(BTreeSet<String>);
    impl VisitMut for Words {
        fn visit_macro_mut(&mut self, mac: &mut Macro) {
            self.0.extend(words(mac.tokens.clone()));
        }
    }
    let mut words = Words(paths(expr));
    words.visit_expr_mut(&mut expr.clone());
    words.0
}

/// Every path of a single segment in `expr`.
pub(crate) fn paths(expr: &Expr) -> BTreeSet<String> {
    struct Paths(BTreeSet<String>);
    impl VisitMut for Paths {
        fn visit_expr_path_mut(&mut self, path: &mut ExprPath) {
            self.0
                .extend(path.path.get_ident().map(|ident| ident.unraw().to_string()));
        }
    }
    let mut paths = Paths(BTreeSet::new());
    paths.visit_expr_mut(&mut expr.clone());
    paths.0
}

/// Every identifier, and those that a format macro captures from a string literal.
pub(crate) fn words(tokens: TokenStream) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                words.insert(ident.unraw().to_string());
            }
            TokenTree::Group(group) => words.extend(self::words(group.stream())),
            TokenTree::Literal(literal) => {
                words.extend(captured(&literal.to_string()));
            }
            TokenTree::Punct(_) => {}
        }
    }
    words
}

/// The arguments that the format string `text` names: `{name}`, `{name:…}`, and `name$` as a width or a precision.
fn captured(text: &str) -> impl Iterator<Item = String> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let text = text.replace("{{", "").replace("}}", "");
    let placeholders = text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    let names = placeholders.flat_map(move |(placeholder, _)| {
        let (name, spec) = placeholder.split_once(':').unwrap_or((placeholder, ""));
        let counts = spec.split('$').rev().skip(1);
        let counts = counts.filter_map(|before| before.rsplit(|c| !is_of_name(c)).next());
        counts.chain([name.trim()]).map(str::to_owned).collect::<Vec<_>>()
    });
    names.collect::<Vec<_>>().into_iter()
}

/// The group that a `macro_rules!` variable holds, or the one that was written.
pub(crate) fn without_invisible(group: Group) -> Group {
    let mut tokens = group.stream().into_iter();
    match (group.delimiter(), tokens.next(), tokens.next()) {
        (Delimiter::None, Some(TokenTree::Group(held)), None) => without_invisible(held),
        _ => group,
    }
}

/// The body with `first` before its first statement. The other tokens are unchanged. Inner attributes are returned as outer
/// attributes, because an async block cannot have inner ones.
pub(crate) fn with_first_statement(body: &Group, first: TokenStream) -> (TokenStream, Group) {
    let mut rest = body.stream().into_iter().peekable();
    let mut attributes = TokenStream::new();
    while let Some(TokenTree::Punct(hash)) = rest.next_if(|token| is_punct(token, '#')) {
        match rest.next_if(|token| is_punct(token, '!')) {
            Some(_) => attributes.extend([TokenTree::Punct(hash)].into_iter().chain(rest.next())),
            // This attribute belongs to the first statement.
            None => {
                return (
                    attributes,
                    rebuilt(body, first, [TokenTree::Punct(hash)].into_iter().chain(rest)),
                );
            }
        }
    }
    (attributes, rebuilt(body, first, rest))
}

fn rebuilt(body: &Group, first: TokenStream, rest: impl Iterator<Item = TokenTree>) -> Group {
    let mut rebuilt = Group::new(body.delimiter(), first.into_iter().chain(rest).collect());
    // The braces have the macro's span, so that lints do not take the first statement for the author's.
    rebuilt.set_span(Span::mixed_site().located_at(body.span()));
    rebuilt
}

/// Whether an attribute works the same on an async and on a plain function.
pub(crate) fn is_inert(attribute: &Attribute) -> bool {
    const INERT: [&str; 11] = [
        "doc",
        "cfg",
        "allow",
        "expect",
        "warn",
        "deny",
        "forbid",
        "must_use",
        "deprecated",
        "inline",
        "cold",
    ];
    INERT.iter().any(|inert| attribute.path().is_ident(inert))
}

fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

/// The pattern without `mut`, `ref` and `&`, so that it binds references when it is matched against a reference.
pub(crate) fn by_reference(pattern: &Pat) -> Pat {
    struct Plain;
    impl VisitMut for Plain {
        fn visit_pat_mut(&mut self, pattern: &mut Pat) {
            if let Pat::Reference(reference) = pattern {
                *pattern = reference.pat.as_ref().clone();
            }
            syn::visit_mut::visit_pat_mut(self, pattern);
        }

        fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
            pattern.by_ref = None;
            pattern.mutability = None;
            syn::visit_mut::visit_pat_ident_mut(self, pattern);
        }
    }
    let mut pattern = pattern.clone();
    Plain.visit_pat_mut(&mut pattern);
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_text_only_what_a_format_macro_captures_is_a_name() {
        let names = |text: &str| captured(text).filter(|name| !name.is_empty()).collect::<Vec<_>>();
        assert_eq!(names("tenant:{}"), Vec::<String>::new());
        assert_eq!(names("{tenant}/{id:>5}"), ["tenant", "id"]);
        assert_eq!(names("{{tenant}} {}"), Vec::<String>::new());
        assert_eq!(names("{id:width$.digits$}"), ["digits", "width", "id"]);
    }
}
