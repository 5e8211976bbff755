//! The options that are constants, as one constant of the expansion.
//!
//! Owns the order of its fields. Does not own the values: `options`.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::Ident;

use crate::root::Root;
use crate::table::{Fingerprint, Options, Variant};

/// The constant that holds the attribute's settings.
pub(crate) fn operation(options: &Options, root: Root) -> TokenStream {
    let operation = root.private(Span::call_site(), "Operation");
    let ttl = millis(options.ttl);
    let name = options.name.as_ref().map(|name| quote!(.with_name(#name)));
    let policy = policy(options, root).map(|policy| quote!(.with_policy(#policy)));
    quote!(#operation::new(#ttl) #name #policy)
}

/// The settings that the attribute names; `None` if it names none.
fn policy(options: &Options, root: Root) -> Option<TokenStream> {
    let in_crate = |path: TokenStream| root.path(Span::call_site(), &path);
    let duration = |duration: Duration| {
        let millis = millis(duration);
        quote!(::core::time::Duration::from_millis(#millis))
    };
    let word = |name: &str, variant: Variant| {
        let [name, variant] = [name, variant].map(|name| Ident::new(name, Span::call_site()));
        in_crate(quote!(#name::#variant))
    };
    let compared = match options.fingerprint {
        Some(Fingerprint::Word(variant)) => Some(variant),
        None | Some(Fingerprint::Of(_)) => None,
    };
    let setters: Vec<_> = [
        ("with_header", options.header.as_ref().map(ToTokens::to_token_stream)),
        ("with_required", options.required.map(ToTokens::into_token_stream)),
        ("with_lease", options.lease.map(duration)),
        (
            "with_in_flight",
            options.in_flight.map(|variant| word("InFlight", variant)),
        ),
        ("with_wait", options.wait.map(duration)),
        (
            "with_after_crash",
            options.after_crash.map(|variant| word("AfterCrash", variant)),
        ),
        ("with_rerun_within", options.rerun_within.map(duration)),
        (
            "with_max_attempts",
            options.max_attempts.map(ToTokens::into_token_stream),
        ),
        ("with_max_run", options.max_run.map(duration)),
        (
            "with_store",
            options.store.map(|variant| word("StoredAnswers", variant)),
        ),
        ("with_fingerprint", compared.map(|variant| word("Compared", variant))),
        (
            "with_on_outage",
            options.on_outage.map(|variant| word("OnOutage", variant)),
        ),
        (
            "with_max_response",
            options.max_response.map(ToTokens::into_token_stream),
        ),
    ]
    .into_iter()
    .filter_map(|(setter, value)| {
        let setter = Ident::new(setter, Span::call_site());
        value.map(|value| quote!(.#setter(#value)))
    })
    .collect();
    let policy = in_crate(quote!(Policy::new()));
    (!setters.is_empty()).then(|| quote!(#policy #(#setters)*))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    // Bounded to ten years by the options.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
