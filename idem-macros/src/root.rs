//! Where expansions find our crate.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote_spanned};
use syn::{Ident, Path};

/// The module of what only expansions name.
pub(crate) const PRIVATE: &str = "__private";

/// The path of our crate, where the author gave one.
#[derive(Clone, Copy)]
pub(crate) struct Root<'a>(pub(crate) Option<&'a Path>);

impl Root<'_> {
    /// A path into the crate; the author's own part of it, if there is one, stays on the author's token.
    pub(crate) fn path(self, span: Span, path: &TokenStream) -> TokenStream {
        match self.0 {
            None => quote_spanned!(span=> ::idem_axum::#path),
            Some(root) => {
                let root = root.to_token_stream().into_iter().map(ours);
                let root: TokenStream = root.collect();
                quote_spanned!(span=> #root::#path)
            }
        }
    }

    /// What only expansions name.
    pub(crate) fn private(self, span: Span, name: &str) -> TokenStream {
        let [module, name] = [PRIVATE, name].map(|name| Ident::new(name, span));
        self.path(span, &quote_spanned!(span=> #module::#name))
    }
}

/// The author's token, as one of the expansion: lints of what authors write are not about it.
fn ours(mut token: TokenTree) -> TokenTree {
    // The span of this one says which crate it is.
    if token.to_string() != "$crate" {
        token.set_span(Span::call_site().located_at(token.span()));
    }
    token
}
