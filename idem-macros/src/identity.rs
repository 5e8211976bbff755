//! The options whose values are expressions over the handler's arguments: scope, key, fingerprint, engine.
//!
//! Owns the expansion of these expressions. Does not own whether an expression is valid: `handler`.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Expr, ExprReference, Ident, PatType, Token};

use crate::handler;
use crate::root::Root;
use crate::table::{Fingerprint, Options, Scope};

/// The expression behind the fingerprint, if there is one.
pub(crate) fn compared(options: &Options) -> Option<&Expr> {
    match &options.fingerprint {
        None | Some(Fingerprint::Word(_)) => None,
        Some(Fingerprint::Of(expr)) => Some(expr),
    }
}

/// The attribute's expressions that identify a request.
fn expressions(options: &Options) -> impl Iterator<Item = &Expr> {
    let scope = match &options.scope {
        Scope::Global(_) => None,
        Scope::Of(expr) => Some(expr),
    };
    scope.into_iter().chain(&options.key).chain(compared(options))
}

/// Every name in the attribute's expressions.
pub(crate) fn mentioned(options: &Options) -> BTreeSet<String> {
    let expressions = expressions(options).chain(&options.engine);
    expressions.flat_map(handler::mentioned).collect()
}

/// The scope, the natural key and the fingerprint.
pub(crate) fn identity(options: &Options, values: &Values) -> TokenStream {
    let private = |name| values.root.private(Span::call_site(), name);
    let scope = match &options.scope {
        Scope::Global(_) => {
            let scope = private("scope");
            quote!(#scope::global())
        }
        Scope::Of(expr) => values.parts(expr, "scope"),
    };
    let setter = |setter: &str, expr: Option<&Expr>, module| {
        let setter = Ident::new(setter, Span::call_site());
        let value = expr.map(|expr| values.parts(expr, module));
        value.map(|value| quote!(.#setter(#value)))
    };
    let key = setter("with_key", options.key.as_ref(), "key");
    let compared = setter("with_compared", compared(options), "fingerprint");
    let mentioned: Vec<_> = expressions(options).collect();
    let identity = private("Identity");
    let identity = if key.is_none() && compared.is_none() {
        scope
    } else {
        quote!(#identity::new(#scope) #key #compared)
    };
    values.over(&mentioned, &identity)
}

/// The attribute's expressions over the handler's arguments.
pub(crate) struct Values<'a> {
    pub(crate) root: Root<'a>,
    pub(crate) arguments: &'a [PatType],
    pub(crate) names: &'a [Ident],
}

impl Values<'_> {
    /// Evaluates `value`, which consists of `exprs`, over references to the arguments that the expressions mention.
    pub(crate) fn over(&self, exprs: &[&Expr], value: &TokenStream) -> TokenStream {
        let mentioned: BTreeSet<_> = exprs.iter().flat_map(|expr| handler::mentioned(expr)).collect();
        let by_path: BTreeSet<_> = exprs.iter().flat_map(|expr| handler::paths(expr)).collect();
        let arguments = self.arguments.iter().zip(self.names);
        let (patterns, names): (Vec<_>, Vec<_>) = arguments
            .filter(|(argument, _)| !mentioned.is_disjoint(&handler::bound(&argument.pat)))
            .map(|(argument, name)| (handler::by_reference(&argument.pat), name))
            .unzip();
        if patterns.is_empty() {
            return value.clone();
        }
        // If there are several names, or words inside a macro, some may be unused.
        let bound = patterns.iter().flat_map(handler::names);
        let used = mark_used(bound, |name| !by_path.contains(name));
        quote!({ #(let #patterns = &#names;)* #used #value })
    }

    /// One value, or a tuple of values, each with its own span.
    pub(crate) fn parts(&self, expr: &Expr, module: &str) -> TokenStream {
        let module_path = self.root.private(expr.span(), module);
        match expr {
            Expr::Tuple(tuple) if !tuple.elems.is_empty() => {
                let parts = tuple.elems.iter().map(|part| self.parts(part, module));
                quote!(#module_path::tuple([#(#parts),*]))
            }
            Expr::Paren(paren) => self.parts(&paren.expr, module),
            Expr::Group(group) => self.parts(&group.expr, module),
            expr => {
                let value = by_reference(expr);
                quote_spanned!(expr.span()=> #module_path::of(#value))
            }
        }
    }
}

/// Uses those of `names` that `may_be_unused`.
///
/// Not by `#[allow(unused_variables)]`, which is an error in a crate that forbids the lint.
pub(crate) fn mark_used(
    names: impl Iterator<Item = Ident>,
    may_be_unused: impl Fn(&str) -> bool,
) -> Option<TokenStream> {
    let by_name = names.map(|name| (name.unraw().to_string(), name));
    let unused: BTreeMap<_, _> = by_name.filter(|(name, _)| may_be_unused(name)).collect();
    let names: Vec<_> = unused.values().collect();
    match names.as_slice() {
        [] => None,
        [name] => Some(quote!(let _ = &#name;)),
        names => Some(quote!(let _ = (#(&#names),*);)),
    }
}

/// A reference to the value of `expr`. Parentheses are added only if they are needed, so that an error spans the whole expression.
pub(crate) fn by_reference(expr: &Expr) -> Expr {
    let and_token = Token![&](expr.span());
    Expr::Reference(ExprReference {
        attrs: Vec::new(),
        and_token,
        mutability: None,
        expr: Box::new(expr.clone()),
    })
}
