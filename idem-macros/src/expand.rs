//! From options and a handler to tokens.
//!
//! Owns names and spans. The generated code contains no logic; it calls functions in `__private`.

use proc_macro2::{Group, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Attribute, Error, Expr, FnArg, Ident, Pat, PatType, Result, ReturnType, Signature, Token, Type, parse_quote,
};

use crate::described::{described, described_above};
use crate::handler::{self, Handler};
use crate::identity::{Values, by_reference, compared, identity, mark_used, mentioned};
use crate::operation::operation;
use crate::options;
use crate::returned::{Constraint, Returned, returned};
use crate::root::{PRIVATE, Root};
use crate::source::source;
use crate::table::{Form, Options, Scope};

/// The whole macro. On error the user's item is emitted as it was, so that nothing else fails because of it.
pub(crate) fn idempotent(attribute: &TokenStream, item: &TokenStream) -> TokenStream {
    match checked(attribute, item.clone()) {
        Ok((options, mut handler)) => match debug_handler(&mut handler) {
            Some(debug) => below(&debug, attribute, &options, &handler),
            None => expand(&options, handler),
        },
        Err(error) => {
            let errors = error.into_compile_error();
            quote!(#errors #item)
        }
    }
}

/// Both halves, or every error of both.
fn checked(attribute: &TokenStream, item: TokenStream) -> Result<(Options, Handler)> {
    match (
        options::parse(attribute, Form::Handler),
        syn::parse2::<Handler>(item).and_then(check_once),
    ) {
        (Ok(options), Ok(handler)) => {
            let scope = match &options.scope {
                Scope::Global(global) => global.as_ref().map_or(Ok(()), |global| handler.check_global(global)),
                Scope::Of(expr) => handler.check_names("scope", expr),
            };
            let named = |option, expr: Option<&Expr>| expr.map_or(Ok(()), |expr| handler.check_names(option, expr));
            let key = named("key", options.key.as_ref());
            let fingerprint = named("fingerprint", compared(&options));
            let engine = named("engine", options.engine.as_ref());
            both(both(scope, key), both(fingerprint, engine)).map(|_| (options, handler))
        }
        (options, handler) => both(options, handler),
    }
}

/// Refuses a second attribute, under which each request would be the duplicate of itself.
fn check_once(handler: Handler) -> Result<Handler> {
    if handler.arguments.last().is_some_and(is_guarded) {
        let message = "this handler has an `#[idempotent]` already; remove one of the two";
        return Err(Error::new(Span::call_site(), message));
    }
    Ok(handler)
}

/// Takes axum's `debug_handler` off the handler.
fn debug_handler(handler: &mut Handler) -> Option<Attribute> {
    let is_debug = |attribute: &Attribute| {
        let name = attribute.path().segments.last();
        name.is_some_and(|segment| segment.ident == "debug_handler")
    };
    let at = handler.attributes.iter().position(is_debug)?;
    Some(handler.attributes.remove(at))
}

/// The handler as it was, with our attribute below `debug`: it then speaks of the author's arguments and not of ours.
fn below(debug: &Attribute, attribute: &TokenStream, options: &Options, handler: &Handler) -> TokenStream {
    let idempotent = Root::of(options).path(Span::call_site(), &quote!(idempotent));
    let Handler {
        attributes,
        visibility,
        body,
        ..
    } = handler;
    let mut signature = handler.signature.clone();
    if signature.inputs.is_empty() {
        // It calls the function with as many arguments as it sees, and ours will have one.
        signature.inputs.push(argument(&quote!(()), parse_quote!(())));
    }
    quote!(#debug #[#idempotent(#attribute)] #(#attributes)* #visibility #signature #body)
}

pub(crate) fn both<A, B>(left: Result<A>, right: Result<B>) -> Result<(A, B)> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(mut error), Err(other)) => {
            error.combine(other);
            Err(error)
        }
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

/// The expansion of a handler. `docs/expansion.md` shows one; its parts, from the top:
///
/// | part | made by |
/// |---|---|
/// | the author's attributes | [`described`] |
/// | the signature, with the last argument guarded and a response returned | [`guarded_signature`], [`guarded_inputs`] |
/// | a check that no description stands above | [`described_above`] |
/// | the guard and the last argument, taken apart | here |
/// | the engine, where an argument gives it | [`engine`] |
/// | the call of `run`: guard, operation, identity and the handler's future | [`identity`], [`handler_future`] |
fn expand(options: &Options, handler: Handler) -> TokenStream {
    let root = Root::of(options);
    let Handler {
        attributes,
        visibility,
        signature,
        arguments,
        body,
    } = handler;
    let names = argument_names(&arguments);
    let values = Values {
        root,
        arguments: &arguments,
        names: &names,
    };
    let guard = Ident::new(GUARD, Span::mixed_site());
    let engine = engine(options, &values, &guard);
    let operation = operation(options, root);
    let above = described_above(&attributes, &signature.ident, &body, root);
    let attributes = described(attributes, options, &operation, &arguments, root);
    let future = handler_future(&signature, &body, &bindings(options, &arguments, &names), root);
    let identity = identity(options, &values);
    // Errors about the future point at the function name.
    let function = signature.ident.span();
    let run = root.private(function, "run");
    let run = quote_spanned!(function=> #run(#guard, const { &#operation }, #identity, #future));
    let is_async = !attributes.iter().all(handler::is_inert);
    let run = if is_async { quote!(#run.await) } else { run };
    let source = source(options, &arguments, root);
    let (inputs, last) = guarded_inputs(arguments, &names, source.as_ref(), root);
    let signature = guarded_signature(signature, inputs, is_async, root);
    quote! {
        #(#attributes)*
        #visibility #signature {
            #above
            let (#guard, #last) = #last.split();
            #engine
            #run
        }
    }
}

/// The handler's future: its arguments taken apart, its body in an async block of its own, and its answer as a response.
///
/// Errors about the response point at the return type.
fn handler_future(signature: &Signature, body: &Group, bindings: &TokenStream, root: Root) -> TokenStream {
    let Returned { ty, constraint } = returned(signature);
    let at_type = Span::mixed_site().located_at(ty.span());
    let answer = Ident::new(ANSWER, at_type);
    let into_response = root.private(at_type, "into_response");
    let respond = quote_spanned!(at_type=> #into_response(#answer));
    // The type of an async block is inferred from its first `return`. Without this one, the compiler would blame the whole
    // body, and not the expression in it that has another type.
    let never = root.private(ty.span(), "never");
    let typed = quote_spanned!(ty.span()=> if false { return #never::<#ty>(); });
    let (inner, body) = handler::with_first_statement(body, typed);
    let constrain = constraint.map(|constraint| match constraint {
        Constraint::Here(ty) => quote!({ fn returned(_: &#ty) {} returned(&#answer); }),
        Constraint::Generic(function) => quote!({ #function }),
    });
    quote_spanned! {signature.ident.span()=>
        async move {
            #bindings
            #inner let #answer: #ty = async move #body.await;
            #constrain
            #respond
        }
    }
}

/// Completes the guard of a handler that names its engine.
fn engine(options: &Options, values: &Values, guard: &Ident) -> Option<TokenStream> {
    let expr = options.engine.as_ref()?;
    let engine = by_reference(expr);
    let with_engine = quote_spanned!(expr.span()=> #guard.with_engine(#engine));
    let with_engine = values.over(&[expr], &with_engine);
    Some(quote!(let #guard = #with_engine;))
}

/// The type that stands for the last argument.
const GUARDED: &str = "Guarded";

/// Names of ours that arguments must not have.
const GUARD: &str = "guard";
const ANSWER: &str = "answer";

/// The arguments as the body knows them.
///
/// As in any `async fn`, each is moved in whole before its pattern takes it apart, so that what the pattern leaves
/// out lives as long as the handler runs.
fn bindings(options: &Options, arguments: &[PatType], names: &[Ident]) -> TokenStream {
    let mentioned = mentioned(options);
    let bindings = arguments.iter().zip(names);
    let bindings = bindings.map(|(PatType { attrs, pat, .. }, name)| quote!(#(#attrs)* let #pat = #name;));
    // A name that the attribute uses need not be used by the body.
    let bound = arguments.iter().flat_map(|argument| handler::names(&argument.pat));
    let used = mark_used(bound, |name| mentioned.contains(name));
    let moved = match names {
        [] => None,
        [name] => Some(quote!(let #name = #name;)),
        names => Some(quote!(let (#(#names),*) = (#(#names),*);)),
    };
    quote!(#moved #(#bindings)* #used)
}

/// What the expansion calls the arguments: as the author does, where a pattern binds one name, for compilers and tools
/// that show it. It is another name all the same, which the body cannot see.
fn argument_names(arguments: &[PatType]) -> Vec<Ident> {
    let names = arguments.iter().enumerate().map(|(index, argument)| {
        let numbered = || format_ident!("argument_{}", index + 1, span = Span::mixed_site());
        let mut name = handler::only_name(&argument.pat).unwrap_or_else(numbered);
        let text = name.to_string();
        let is_reserved = [GUARD, ANSWER].contains(&text.as_str()) || text.starts_with("argument_");
        if is_reserved || handler::may_be_a_unit(&name, &argument.ty) {
            return numbered();
        }
        name.set_span(Span::mixed_site().located_at(name.span()));
        name
    });
    names.collect()
}

/// The arguments with plain names, the last one guarded, and its name.
fn guarded_inputs(
    mut arguments: Vec<PatType>,
    names: &[Ident],
    source: Option<&TokenStream>,
    root: Root,
) -> (Punctuated<FnArg, Token![,]>, Ident) {
    let (last, last_name) = match (arguments.pop(), names.last()) {
        (Some(last), Some(name)) => (*last.ty, name.clone()),
        _ => (parse_quote!(()), Ident::new("nothing", Span::mixed_site())),
    };
    let wrapper = root.private(last.span(), GUARDED);
    let source = source.map(|source| quote!(, #source));
    let last = Type::Verbatim(quote!(#wrapper<#last #source>));
    let first = arguments
        .into_iter()
        .zip(names)
        .map(|(PatType { ty, .. }, name)| argument(name, *ty));
    let inputs = first.chain([argument(&last_name, last)]).collect();
    (inputs, last_name)
}

fn argument(pattern: &impl ToTokens, ty: Type) -> FnArg {
    FnArg::Typed(PatType {
        attrs: Vec::new(),
        pat: Box::new(Pat::Verbatim(pattern.to_token_stream())),
        colon_token: Token![:](Span::call_site()),
        ty: Box::new(ty),
    })
}

/// The user's signature with other arguments, and a response returned.
///
/// A future inside a future of the same thing is what costs most to compile, so the function returns the one that it has.
/// Only below an attribute that may mean an `async fn`, as `#[tracing::instrument]` does, it stays one.
fn guarded_signature(
    mut signature: Signature,
    inputs: Punctuated<FnArg, Token![,]>,
    is_async: bool,
    root: Root,
) -> Signature {
    let mut response = root.private(Span::call_site(), "Response");
    if !is_async {
        signature.asyncness = None;
        let future = root.private(Span::call_site(), "BoxFuture");
        response = quote!(#future<'static, #response>);
    }
    signature.inputs = inputs;
    signature.output = ReturnType::Type(Token![->](Span::call_site()), Box::new(Type::Verbatim(response)));
    signature
}

/// Whether this is the last argument of a handler that an `#[idempotent]` has expanded already, by whatever name that
/// attribute was written.
fn is_guarded(argument: &PatType) -> bool {
    let Type::Path(path) = argument.ty.as_ref() else {
        return false;
    };
    let names = path.path.segments.iter().rev().map(|segment| &segment.ident);
    names.take(2).eq([GUARDED, PRIVATE])
}
