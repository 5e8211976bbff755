//! Passing the options to `#[utoipa::path]`, for the feature `utoipa`.
//!
//! Owns two cases:
//!
//! - `#[utoipa::path]` below `#[idempotent]` gets the options as one more extension. `idem-axum` reads the extension.
//! - `#[utoipa::path]` above `#[idempotent]` has been expanded already and cannot get the options, so the author gets a warning.
//!   It is recognized by the name of the type that it made.
//!
//! Does not own what the options mean for a client: `idem-axum`.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::ext::IdentExt as _;
use syn::{Attribute, Ident, Meta, PatType, Path, Type};

use crate::handler::words;
use crate::root::Root;
use crate::table::Options;

/// The same name as in `idem-axum`.
const EXTENSION: &str = "x-idempotency";

/// The handler's attributes, of which one may describe it, with `operation` in that description.
pub(crate) fn described(
    mut attributes: Vec<Attribute>,
    options: &Options,
    operation: &TokenStream,
    arguments: &[PatType],
    root: Root,
) -> Vec<Attribute> {
    if !cfg!(feature = "utoipa") {
        return attributes;
    }
    let natural_key = options.key.is_some();
    let transacts = arguments.iter().any(is_transaction);
    let mark = root.private(Span::call_site(), "Mark");
    let extension = quote!((#EXTENSION = json!(#mark::new(&#operation, #natural_key, #transacts))));
    for attribute in &mut attributes {
        if let Meta::List(list) = &mut attribute.meta
            && is_description(&list.path)
        {
            list.tokens = with_extension(std::mem::take(&mut list.tokens), &extension);
        }
    }
    attributes
}

/// Whether an argument is a `Transaction` or a `Joint`, by the written name of its type. The macro cannot resolve types.
fn is_transaction(argument: &PatType) -> bool {
    let Type::Path(ty) = &*argument.ty else { return false };
    let name = ty.path.segments.last().map(|last| &last.ident);
    name.is_some_and(|name| name == "Transaction" || name == "Joint")
}

fn is_description(path: &Path) -> bool {
    let names = path.segments.iter().rev().map(|segment| &segment.ident);
    names.take(2).eq(["path", "utoipa"])
}

/// Whether the attribute may be `#[utoipa::path]` under another name: it has a `path` argument.
fn may_describe(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, Meta::List(list) if words(list.tokens.clone()).contains("path"))
}

/// Whether an attribute above may have parsed the function and printed it anew, as `#[utoipa::path]` does.
///
/// Three kinds of block are distinguished by their spans:
///
/// - The two braces that an author writes have different spans.
/// - The two braces that a macro prints have the same span: that of the whole block.
/// - In a block that a macro has filled, as `#[tracing::instrument]` does, the first token does not have the span of written code.
fn is_printed_anew(body: &Group) -> bool {
    let [open, close] = [body.span_open(), body.span_close()].map(|brace| brace.source_text());
    let is_written = |token: &TokenTree| {
        let (written, printed) = (token.span().source_text(), token.to_string());
        let is_same = |written: String| match token {
            TokenTree::Group(_) => written.chars().next() == printed.chars().next(),
            _ => written == printed,
        };
        written.is_none_or(is_same)
    };
    open == close && body.stream().into_iter().take(1).all(|first| is_written(&first))
}

/// Statements that cause a warning if the handler is described by an attribute that is already expanded.
///
/// `#[utoipa::path]` makes a type beside the handler. The statements name that type. If it does not exist, the name resolves to a
/// type that the statements define themselves, whose constant does not come from a trait.
///
/// The name may also come from a glob import, of a handler with the same name in another module. So the statements are generated
/// only if the type may belong to this handler.
pub(crate) fn described_above(
    attributes: &[Attribute],
    handler: &Ident,
    body: &Group,
    root: Root,
) -> Option<TokenStream> {
    let is_described = || attributes.iter().any(|attribute| is_description(attribute.path()));
    let may_be = || attributes.iter().any(may_describe) || is_printed_anew(body);
    if !cfg!(feature = "utoipa") || is_described() || !may_be() {
        return None;
    }
    let span = Span::call_site().located_at(handler.span());
    let made = format_ident!("__path_{}", handler.unraw(), span = span);
    let warns = root.private(Span::call_site(), "DescribedAbove");
    let checked = Ident::new("CHECKED", span);
    Some(quote! {
        {
            struct #made;
            impl #made {
                const #checked: () = ();
            }
            {
                use self::*;
                use #warns as _;
                const _: () = #made::#checked;
            }
        }
    })
}

/// The arguments of `#[utoipa::path]`, with one extension more.
fn with_extension(arguments: TokenStream, extension: &TokenStream) -> TokenStream {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    let is_extensions = |token: &TokenTree| matches!(token, TokenTree::Ident(name) if name == "extensions");
    let at = arguments.iter().position(is_extensions).map(|at| at + 1);
    match at.and_then(|at| arguments.get_mut(at)) {
        Some(TokenTree::Group(others)) => {
            let both = after(&others.stream(), extension);
            let span = others.span();
            *others = Group::new(Delimiter::Parenthesis, both);
            others.set_span(span);
            arguments.into_iter().collect()
        }
        _ => after(&arguments.into_iter().collect(), &quote!(extensions(#extension))),
    }
}

/// A list with one entry more.
fn after(list: &TokenStream, entry: &TokenStream) -> TokenStream {
    match list.clone().into_iter().last() {
        None => entry.clone(),
        Some(TokenTree::Punct(comma)) if comma.as_char() == ',' => quote!(#list #entry),
        Some(_) => quote!(#list, #entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_one_more_of_those_there_are_or_the_only_one() {
        let table = [
            ("", "extensions((ours))"),
            ("post, path = p", "post, path = p, extensions((ours))"),
            ("post,", "post, extensions((ours))"),
            ("extensions(), post", "extensions((ours)), post"),
            ("extensions((a)), post", "extensions((a), (ours)), post"),
            ("post, extensions((a),),", "post, extensions((a), (ours)),"),
            // The argument of another option.
            (
                "request_body(extensions((a)))",
                "request_body(extensions((a))), extensions((ours))",
            ),
        ];
        for (arguments, expected) in table {
            let [arguments, expected] = [arguments, expected].map(|text| text.parse::<TokenStream>().expect("tokens"));
            let extended = with_extension(arguments, &quote!((ours)));
            assert_eq!(extended.to_string(), expected.to_string());
        }
    }
}
