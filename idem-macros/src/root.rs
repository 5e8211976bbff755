//! Paths from the expansion into the crate that exports the attribute.
//!
//! Owns the path of the crate, and the spans of the tokens of a path. Does not own which items are named.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote_spanned};
use syn::{Ident, Path};

use crate::table::{Form, Options};

/// The module of the items that only expansions use.
pub(crate) const PRIVATE: &str = "__private";

/// The crate that exports the attribute.
#[derive(Clone, Copy)]
pub(crate) struct Root<'a> {
    form: Form,
    /// Its path, if the author gave one by `crate = …`.
    given: Option<&'a Path>,
}

impl<'a> Root<'a> {
    pub(crate) fn of(options: &'a Options) -> Self {
        Self {
            form: options.form,
            given: options.root.as_ref(),
        }
    }

    /// A path into the crate. If the author gave the first part of it, that part keeps the author's span.
    pub(crate) fn path(self, span: Span, path: &TokenStream) -> TokenStream {
        match (self.given, self.form) {
            (None, Form::Handler) => quote_spanned!(span=> ::idem_axum::#path),
            (None, Form::Task) => quote_spanned!(span=> ::idem_task::#path),
            (Some(root), _) => {
                let root = root.to_token_stream().into_iter().map(at_call_site);
                let root: TokenStream = root.collect();
                quote_spanned!(span=> #root::#path)
            }
        }
    }

    /// The path of an item that only expansions use.
    pub(crate) fn private(self, span: Span, name: &str) -> TokenStream {
        let [module, name] = [PRIVATE, name].map(|name| Ident::new(name, span));
        self.path(span, &quote_spanned!(span=> #module::#name))
    }
}

/// The author's token with a span of the expansion, so that lints about written code do not apply to it.
fn at_call_site(mut token: TokenTree) -> TokenTree {
    // The span of `$crate` determines which crate it means.
    if token.to_string() != "$crate" {
        token.set_span(Span::call_site().located_at(token.span()));
    }
    token
}
