//! The facts about a handler that are needed while its arguments are extracted, as a type.
//!
//! Owns the choice of that type. Does not own what the extractor does with it: `idem-axum`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::PatType;

use crate::handler;
use crate::root::Root;
use crate::table::{Fingerprint, Options, Scope};

/// The type that says where the engine comes from, what is compared, and whether the scope uses the last argument. `None` if all
/// three have their defaults.
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

/// Whether the scope uses a name of the last argument, which may be the request's body.
fn is_scoped_by_last(options: &Options, arguments: &[PatType]) -> bool {
    match (&options.scope, arguments.last()) {
        (Scope::Of(expr), Some(last)) => !handler::mentioned(expr).is_disjoint(&handler::bound(&last.pat)),
        _ => false,
    }
}
