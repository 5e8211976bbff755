//! What `#[utoipa::path]` below ours is told of the options, and its author where it stands above. Feature `utoipa`.
//!
//! Owns how it is told: by one more of the extensions that its description has. What that means for a client is
//! `idem-axum`'s, which reads it there. One that stands above has been expanded before ours and can be told nothing: all
//! that is left of it is the name of the type that it made.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::ext::IdentExt as _;
use syn::{Attribute, Ident, Meta, Path};

use crate::root::Root;
use crate::table::Options;

/// As `idem-axum` has it.
const EXTENSION: &str = "x-idempotency";

/// The handler's attributes, of which one may describe it, with `operation` in that description.
pub(crate) fn described(
    mut attributes: Vec<Attribute>,
    options: &Options,
    operation: &TokenStream,
    root: Root,
) -> Vec<Attribute> {
    if !cfg!(feature = "utoipa") {
        return attributes;
    }
    let natural_key = options.key.is_some();
    let mark = root.private(Span::call_site(), "Mark");
    let extension = quote!((#EXTENSION = json!(#mark::new(&#operation, #natural_key))));
    for attribute in &mut attributes {
        if let Meta::List(list) = &mut attribute.meta
            && is_description(&list.path)
        {
            list.tokens = with_extension(std::mem::take(&mut list.tokens), &extension);
        }
    }
    attributes
}

fn is_description(path: &Path) -> bool {
    let names = path.segments.iter().rev().map(|segment| &segment.ident);
    names.take(2).eq(["path", "utoipa"])
}

/// Statements that are a warning where the handler is described though none of its attributes does it.
///
/// The type that `#[utoipa::path]` makes is beside the handler. If it is not there, the one of the same name that is made
/// here is meant, whose constant is no trait's.
pub(crate) fn described_above(attributes: &[Attribute], handler: &Ident, root: Root) -> Option<TokenStream> {
    if !cfg!(feature = "utoipa") || attributes.iter().any(|attribute| is_description(attribute.path())) {
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
            // Another option's.
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
