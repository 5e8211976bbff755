//! What is known of a handler while its arguments are extracted, as a type.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::PatType;

use crate::handler;
use crate::root::Root;
use crate::table::{Fingerprint, Options, Scope};

/// Where the engine comes from, what is compared, and whether the scope is made of the last argument; nothing where all of
/// that is as usual.
pub(crate) fn source(options: &Options, arguments: &[PatType], root: Root) -> Option<TokenStream> {
    let private = |name: &str| root.private(Span::call_site(), name);
    let engine = match (&options.engine, &options.header) {
        (Some(_), _) => Some(private("FromArgument")),
        (None, Some(_)) => Some(private("FromLayerByHeader")),
        (None, None) => None,
    };
    let compares = match &options.fingerprint {
        None => None,
        Some(Fingerprint::Of(_)) => Some("ComparesValue"),
        Some(Fingerprint::Word("Nothing")) => Some("ComparesNothing"),
        Some(Fingerprint::Word(_)) => Some("ComparesRequest"),
    };
    let scoped = is_scoped_by_last(options, arguments).then_some("ScopedByLast");
    let outer = compares.into_iter().chain(scoped).map(private);
    outer.fold(engine, |inner, outer| {
        let inner = inner.map(|inner| quote!(<#inner>));
        Some(quote!(#outer #inner))
    })
}

/// Whether the scope names something of the last argument, which may be the request's body.
fn is_scoped_by_last(options: &Options, arguments: &[PatType]) -> bool {
    match (&options.scope, arguments.last()) {
        (Scope::Of(expr), Some(last)) => !handler::mentioned(expr).is_disjoint(&handler::bound(&last.pat)),
        _ => false,
    }
}
