//! The attribute on tasks: from options and an `async fn` to tokens.
//!
//! Owns which functions a task may be, and the expansion. The signature stays as it was, so that callers, traits and other attributes
//! see what was written. Does not own the options: they are those of handlers, with the differences that `table` has.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Expr, FnArg, Ident, ReceiverKind, Result, ReturnType, Signature, Type, Visibility};

use crate::expand::both;
use crate::handler;
use crate::identity::{Values, by_reference, compared};
use crate::operation::millis;
use crate::options;
use crate::root::Root;
use crate::table::{Form, Options, REFUSE, Scope, WAIT};

/// An `async fn`, possibly with a receiver.
struct Task {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
    body: Group,
}

impl Parse for Task {
    fn parse(input: ParseStream) -> Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let goes_on = "`#[idempotent]` goes on an `async fn`";
        let signature: Signature = input
            .parse()
            .map_err(|error| Error::new(error.span(), format!("{goes_on}; {error}")))?;
        let body = match input.parse()? {
            TokenTree::Group(body) => handler::without_invisible(body),
            other => return Err(Error::new(other.span(), format!("{goes_on} with a body"))),
        };
        let task = Self {
            attributes,
            visibility,
            signature,
            body,
        };
        let errors = task.errors().into_iter().reduce(|mut all, error| {
            all.combine(error);
            all
        });
        errors.map_or(Ok(task), Err)
    }
}

impl Task {
    fn errors(&self) -> Vec<Error> {
        let Signature {
            asyncness,
            fn_token,
            inputs,
            output,
            ident,
            ..
        } = &self.signature;
        let mut errors = Vec::new();
        if asyncness.is_none() {
            errors.push(Error::new(fn_token.span, "a task is async; write `async fn`"));
        }
        if matches!(output, ReturnType::Default) {
            let message =
                "a task returns a `Result`, which also says why it did not run; write `-> Result<(), Refused>`";
            errors.push(Error::new_spanned(ident, message));
        }
        for input in inputs {
            let borrowed = match input {
                FnArg::Receiver(receiver) => match &receiver.kind {
                    ReceiverKind::Reference(..) => true,
                    ReceiverKind::Typed(_, ty) => is_borrowed(ty),
                    _ => false,
                },
                FnArg::Typed(argument) => is_borrowed(&argument.ty),
            };
            if borrowed {
                let message = "a task goes on when its caller is gone, so it borrows nothing from it; take an owned value, or an `Arc`";
                errors.push(Error::new_spanned(input, message));
            }
        }
        errors
    }

    /// The names that the arguments bind, and `self`.
    fn bound(&self) -> Vec<String> {
        let inputs = self.signature.inputs.iter();
        let bound = inputs.flat_map(|input| match input {
            FnArg::Receiver(_) => vec![String::from("self")],
            FnArg::Typed(argument) => handler::bound(&argument.pat).into_iter().collect(),
        });
        bound.collect()
    }

    /// Checks that `expr`, the value of `option`, uses an argument: all messages would have one key otherwise.
    fn check_names(&self, option: &str, expr: &Expr) -> Result<()> {
        let bound = self.bound();
        if handler::mentioned(expr).iter().any(|name| bound.contains(name)) {
            return Ok(());
        }
        let message = format!("this `{option}` names no argument of the task, so it is the same for every message");
        Err(Error::new_spanned(expr, message))
    }
}

/// Whether a value of this type is borrowed from the caller.
fn is_borrowed(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => reference
            .lifetime
            .as_ref()
            .is_none_or(|lifetime| lifetime.ident != "static"),
        Type::Paren(ty) => is_borrowed(&ty.elem),
        Type::Group(ty) => is_borrowed(&ty.elem),
        _ => false,
    }
}

/// The whole macro. On error the user's item is emitted as it was, so that nothing else fails because of it.
pub(crate) fn idempotent(attribute: &TokenStream, item: &TokenStream) -> TokenStream {
    match checked(attribute, item.clone()) {
        Ok((options, task)) => expand(&options, &task),
        Err(error) => {
            let errors = error.into_compile_error();
            quote!(#errors #item)
        }
    }
}

/// Both halves, or every error of both.
fn checked(attribute: &TokenStream, item: TokenStream) -> Result<(Options, Task)> {
    match (options::parse(attribute, Form::Task), syn::parse2::<Task>(item)) {
        (Ok(options), Ok(task)) => {
            let named = |option, expr: Option<&Expr>| expr.map_or(Ok(()), |expr| task.check_names(option, expr));
            let scope = match &options.scope {
                Scope::Global(_) => None,
                Scope::Of(expr) => Some(expr),
            };
            let identity = both(named("scope", scope), named("key", options.key.as_ref()));
            let fingerprint = named("fingerprint", compared(&options));
            both(identity, fingerprint).map(|_| (options, task))
        }
        (options, task) => both(options, task),
    }
}

/// The task of the attribute's settings over the arguments, and its run, whose body is the author's.
fn expand(options: &Options, task: &Task) -> TokenStream {
    let root = Root::of(options);
    let Task {
        attributes,
        visibility,
        signature,
        body,
    } = task;
    let at = |name: &str| Ident::new(name, Span::mixed_site());
    let (task, answer) = (at("task"), at("answer"));
    let begin = begin(options, root);
    let ty = match &signature.output {
        ReturnType::Type(_, ty) => ty.to_token_stream(),
        ReturnType::Default => quote!(()),
    };
    // The type of an async block is inferred from its first `return`.
    let never = root.private(ty.span(), "never");
    let typed = quote_spanned!(ty.span()=> if false { return #never::<#ty>(); });
    let (inner, body) = handler::with_first_statement(body, typed);
    // Errors about the future point at the function's name.
    let block = quote_spanned! {signature.ident.span()=> {
        let #task = #begin;
        #task.run(move |_| async move {
            #inner let #answer: #ty = async move #body.await;
            #answer
        }).await
    }};
    quote!(#(#attributes)* #visibility #signature #block)
}

/// The expression of the task before its run.
fn begin(options: &Options, root: Root) -> TokenStream {
    let private = |name| root.private(Span::call_site(), name);
    let values = Values {
        root,
        arguments: &[],
        names: &[],
    };
    let task = private("task");
    let engine = options.engine.as_ref().map(by_reference);
    let name = &options.name;
    let scope = match &options.scope {
        Scope::Global(_) => {
            let scope = private("scope");
            quote!(#scope::global())
        }
        Scope::Of(expr) => values.parts(expr, "scope"),
    };
    let key = options.key.as_ref().map(|expr| values.parts(expr, "key"));
    let ttl = millis(options.ttl);
    let settings = settings(options, root);
    quote! {
        #task(#engine, #name).scoped(#scope).keyed(#key).ttl(::core::time::Duration::from_millis(#ttl)) #settings
    }
}

/// The calls of the settings that have a default.
fn settings(options: &Options, root: Root) -> TokenStream {
    /// How long a duplicate waits where the attribute does not say.
    const WAITS: std::time::Duration = std::time::Duration::from_secs(10);
    let duration = |setter: &str, duration: Option<std::time::Duration>| {
        let setter = Ident::new(setter, Span::call_site());
        duration.map(|duration| {
            let millis = millis(duration);
            quote!(.#setter(::core::time::Duration::from_millis(#millis)))
        })
    };
    let wait = match options.in_flight {
        Some(WAIT) => Some(options.wait.unwrap_or(WAITS)),
        Some(_) => None,
        None => options.wait,
    };
    let after_crash = options.after_crash.filter(|variant| *variant == REFUSE).map(|_| {
        let refuse = root.path(Span::call_site(), &quote!(AfterCrash::Refuse));
        quote!(.after_crash(#refuse))
    });
    let max_attempts = options.max_attempts.map(|most| quote!(.max_attempts(#most)));
    let max_result = options.max_result.map(|bytes| quote!(.max_result(#bytes)));
    let in_outage = options.on_outage.filter(|variant| *variant == "Run");
    let in_outage = in_outage.map(|_| quote!(.run_in_outage()));
    let compared = compared(options).map(|expr| {
        let value = by_reference(expr);
        quote_spanned!(expr.span()=> .compare(#value))
    });
    let durations = [
        duration("lease", options.lease),
        duration("wait", wait),
        duration("rerun_within", options.rerun_within),
        duration("max_run", options.max_run),
    ];
    let durations = durations.into_iter().flatten();
    quote!(#(#durations)* #after_crash #max_attempts #max_result #in_outage #compared)
}
