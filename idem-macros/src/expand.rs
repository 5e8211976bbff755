//! From options and a handler to tokens.
//!
//! Owns names and spans. There is no decision of ours in the tokens: logic is in the functions they call.

use std::collections::BTreeSet;
use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::visit_mut::VisitMut;
use syn::{Expr, GenericParam, Ident, PatType, Result, ReturnType, Signature, Type, parse_quote};

use crate::handler::{self, Handler};
use crate::options;
use crate::table::{Fingerprint, InFlight, Options, Scope, Stored};

/// How long a duplicate waits where nothing else is said.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// The whole macro. On error the user's item is emitted as it was, so that nothing else fails because of it.
pub(crate) fn idempotent(attribute: &TokenStream, item: &TokenStream) -> TokenStream {
    match checked(attribute, item.clone()) {
        Ok((options, handler)) => expand(&options, handler),
        Err(error) => {
            let errors = error.into_compile_error();
            quote!(#errors #item)
        }
    }
}

/// Both halves, or every error of both.
fn checked(attribute: &TokenStream, item: TokenStream) -> Result<(Options, Handler)> {
    match (options::parse(attribute), syn::parse2::<Handler>(item)) {
        (Ok(options), Ok(handler)) => {
            let scope = match &options.scope {
                Scope::Global(global) => global.as_ref().map_or(Ok(()), |global| handler.check_global(global)),
                Scope::Of(expr) => handler.check_names("scope", expr),
            };
            let named = |option, expr: Option<&Expr>| expr.map_or(Ok(()), |expr| handler.check_names(option, expr));
            let key = named("key", options.key.as_ref());
            let fingerprint = named("fingerprint", compared(&options));
            both(scope, both(key, fingerprint)).map(|_| (options, handler))
        }
        (options, handler) => both(options, handler),
    }
}

fn both<A, B>(left: Result<A>, right: Result<B>) -> Result<(A, B)> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(mut error), Err(other)) => {
            error.combine(other);
            Err(error)
        }
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

fn expand(options: &Options, handler: Handler) -> TokenStream {
    let private = quote!(::idem_axum::__private);
    let Handler {
        attributes,
        visibility,
        signature,
        arguments,
        body,
    } = handler;
    let local = |name: &str| Ident::new(name, Span::mixed_site());
    let [guard, guarded, last] = ["guard", "guarded", "last"].map(local);
    let names = argument_names(arguments.len(), &last);
    let policy = policy(options);
    let identity = identity(options, &arguments, &names, &private);
    let bindings = bindings(options, &arguments, &names);
    let Returned { ty, constraint } = returned(&signature);
    let run = quote_spanned!(signature.ident.span()=> ::idem_axum::__private::run);
    // What is wrong with the answer is wrong with the return type.
    let answer = Ident::new("answer", Span::mixed_site().located_at(ty.span()));
    let into_response = quote_spanned!(ty.span()=> ::idem_axum::__private::into_response);
    let constrain = constraint.map(|ty| quote!({ fn returned(_: &#ty) {} returned(&#answer); }));
    let signature = guarded_signature(signature, &arguments, &names, &guarded, &private);
    quote! {
        #(#attributes)*
        #visibility #signature {
            let (#guard, #last) = #guarded.split();
            #run(#guard, const { &#policy }, #identity, async move {
                #bindings
                let #answer: #ty = (async move #body).await;
                #constrain
                #into_response(#answer)
            })
            .await
        }
    }
}

/// The arguments as the body knows them.
///
/// As in any `async fn`, each is moved in whole before its pattern takes it apart, so that what the pattern leaves
/// out lives as long as the handler runs.
fn bindings(options: &Options, arguments: &[PatType], names: &[Ident]) -> TokenStream {
    let mentioned = mentioned(options);
    let bindings = arguments.iter().zip(names).map(|(PatType { attrs, pat, .. }, name)| {
        // Used by the attribute, it need not be used by the body.
        let used = !mentioned.is_disjoint(&handler::bound(pat));
        let allow = used.then(|| quote!(#[allow(unused_variables)]));
        quote! {
            let #name = #name;
            #allow #(#attrs)* let #pat = #name;
        }
    });
    quote!(#(#bindings)*)
}

/// The expression behind the fingerprint, if there is one.
fn compared(options: &Options) -> Option<&Expr> {
    match &options.fingerprint {
        Fingerprint::Request | Fingerprint::Nothing => None,
        Fingerprint::Of(expr) => Some(expr),
    }
}

/// Every name in the attribute's expressions.
fn mentioned(options: &Options) -> BTreeSet<String> {
    let scope = match &options.scope {
        Scope::Global(_) => None,
        Scope::Of(expr) => Some(expr),
    };
    scope
        .into_iter()
        .chain(&options.key)
        .chain(compared(options))
        .flat_map(handler::mentioned)
        .collect()
}

/// What the expansion calls the arguments; the last one comes out of the guard.
fn argument_names(count: usize, last: &Ident) -> Vec<Ident> {
    let first = (1..count).map(|index| Ident::new(&format!("argument_{index}"), Span::mixed_site()));
    first.chain((count > 0).then(|| last.clone())).collect()
}

/// The user's signature with plain argument names, the last argument guarded, and a response returned.
fn guarded_signature(
    mut signature: Signature,
    arguments: &[PatType],
    names: &[Ident],
    guarded: &Ident,
    private: &TokenStream,
) -> Signature {
    let unit: Type = parse_quote!(());
    let (last, first) = match arguments {
        [first @ .., last] => (last.ty.as_ref(), first),
        [] => (&unit, arguments),
    };
    let first = first
        .iter()
        .zip(names)
        .map(|(PatType { ty, .. }, name)| quote!(#name: #ty));
    let inputs = quote!(#(#first,)* #guarded: #private::Guarded<#last>);
    signature.inputs = parse_quote!(#inputs);
    signature.output = parse_quote!(-> #private::Response);
    signature
}

/// The user's return type.
struct Returned {
    /// As the type of a binding, where `impl Trait` can only be inferred.
    ty: Type,
    /// As it was written, for an argument of that type: what an `impl Trait` in it demands of the answer still takes
    /// part in inference, and the user's imports of the traits are still used.
    constraint: Option<Type>,
}

fn returned(signature: &Signature) -> Returned {
    let ReturnType::Type(_, written) = &signature.output else {
        return Returned {
            ty: parse_quote!(()),
            constraint: None,
        };
    };
    let mut ty = written.as_ref().clone();
    let mut traits = InferTraits::default();
    traits.visit_type_mut(&mut ty);
    let generic = signature.generics.params.iter().map(|param| match param {
        GenericParam::Lifetime(param) => param.lifetime.ident.to_string(),
        GenericParam::Type(param) => param.ident.to_string(),
        GenericParam::Const(param) => param.ident.to_string(),
    });
    // What depends on the function's surroundings cannot be named in an item of its own; nor can `use<..>`.
    let local: BTreeSet<_> = generic.chain(["Self".into(), "use".into()]).collect();
    let can_be_named = traits.found && handler::words(quote!(#written)).is_disjoint(&local);
    Returned {
        ty,
        constraint: can_be_named.then(|| written.as_ref().clone()),
    }
}

/// Replaces every `impl Trait` by `_`.
#[derive(Default)]
struct InferTraits {
    found: bool,
}

impl VisitMut for InferTraits {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::ImplTrait(_) = ty {
            self.found = true;
            *ty = Type::Verbatim(quote_spanned!(ty.span()=> _));
        }
        syn::visit_mut::visit_type_mut(self, ty);
    }
}

/// The options as a policy.
fn policy(options: &Options) -> TokenStream {
    let duration = |duration: &Duration| {
        // Bounded to ten years by the options.
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        quote!(::core::time::Duration::from_millis(#millis))
    };
    let ttl = duration(&options.ttl);
    let setters = [
        options
            .lease
            .as_ref()
            .map(|lease| (format_ident!("with_lease"), duration(lease))),
        options
            .header
            .as_ref()
            .map(|header| (format_ident!("with_header"), header.to_token_stream())),
        options
            .required
            .map(|required| (format_ident!("with_required"), required.to_token_stream())),
        options
            .name
            .as_ref()
            .map(|name| (format_ident!("with_name"), name.to_token_stream())),
        options
            .max_response
            .map(|bytes| (format_ident!("with_max_response"), bytes.to_token_stream())),
    ];
    let wait = options.wait.unwrap_or(DEFAULT_WAIT);
    let wait = (options.in_flight == InFlight::Wait).then(|| duration(&wait));
    let wait = wait.map(|wait| quote!(.with_wait(#wait)));
    let accept = (options.in_flight == InFlight::Accept).then(|| quote!(.with_accept()));
    let refuse = quote!(.with_after_crash(::idem_axum::__private::AfterCrash::Refuse));
    let refuse = options.refuse_after_crash.then_some(refuse);
    let stored = match options.store {
        Stored::Final => None,
        Stored::Success => Some(quote!(Success)),
        Stored::All => Some(quote!(All)),
    };
    let stored = stored.map(|which| quote!(.with_stored(::idem_axum::__private::StoredAnswers::#which)));
    let run = options.run_in_outage.then(|| quote!(.with_run_in_outage()));
    let setters = setters.iter().flatten().map(|(setter, value)| quote!(.#setter(#value)));
    quote!(::idem_axum::__private::Policy::new(#ttl) #(#setters)* #wait #accept #refuse #stored #run)
}

/// Scope, natural key and what is compared, evaluated over references to the arguments they mention.
fn identity(options: &Options, arguments: &[PatType], names: &[Ident], private: &TokenStream) -> TokenStream {
    let scope_type = quote!(#private::Scope);
    let key_type = quote!(#private::IdempotencyKey);
    let scope = match &options.scope {
        Scope::Global(_) => quote!(#scope_type::global()),
        Scope::Of(expr) => parts(expr, &scope_type),
    };
    let key = match &options.key {
        None => quote!(::core::option::Option::None),
        Some(expr) => {
            let key = parts(expr, &key_type);
            quote!(::core::option::Option::Some(#key))
        }
    };
    let compared = match &options.fingerprint {
        Fingerprint::Request => quote!(#private::Compared::Request),
        Fingerprint::Nothing => quote!(#private::Compared::Nothing),
        Fingerprint::Of(expr) => {
            let value = parts(expr, &quote!(#private::SerdeForm));
            quote!(#private::Compared::Value(#value))
        }
    };
    let mentioned = mentioned(options);
    let bindings = arguments.iter().zip(names).filter_map(|(argument, name)| {
        let is_mentioned = !mentioned.is_disjoint(&handler::bound(&argument.pat));
        is_mentioned.then(|| {
            let pattern = handler::by_reference(&argument.pat);
            quote!(#[allow(unused_variables)] let #pattern = &#name;)
        })
    });
    quote!({ #(#bindings)* #private::Identity { scope: #scope, key: #key, compared: #compared } })
}

/// One value, or a tuple of them, each on its own tokens.
fn parts(expr: &Expr, ty: &TokenStream) -> TokenStream {
    match expr {
        Expr::Tuple(tuple) if !tuple.elems.is_empty() => {
            let parts = tuple.elems.iter().map(|part| parts(part, ty));
            quote!(#ty::tuple([#(#parts),*]))
        }
        Expr::Paren(paren) => parts(&paren.expr, ty),
        Expr::Group(group) => parts(&group.expr, ty),
        expr => quote_spanned!(expr.span()=> #ty::of(&(#expr))),
    }
}
