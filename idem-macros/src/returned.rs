//! The handler's return type, in the forms that the expansion needs.
//!
//! Owns the treatment of `impl Trait`. Does not own where the type is used: `expand`.

use std::collections::BTreeSet;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::token::Paren;
use syn::visit_mut::VisitMut;
use syn::{GenericParam, ReturnType, Signature, Type, TypeImplTrait, TypeParamBound, TypeParen, parse_quote};

use crate::handler;

/// The user's return type.
pub(crate) struct Returned {
    /// The type of a binding: `_` in the place of each `impl Trait`.
    pub(crate) ty: Type,
    pub(crate) constraint: Option<Constraint>,
}

/// A return type with `impl Trait`, as it was written, for an argument of that type. It checks the traits, and the user's
/// imports of them count as used.
pub(crate) enum Constraint {
    /// The type is used in the handler's body, so its traits take part in inference.
    Here(Box<Type>),
    /// The type names the handler's generic parameters, so it stands in this function, which has the same parameters.
    Generic(TokenStream),
}

pub(crate) fn returned(signature: &Signature) -> Returned {
    let ReturnType::Type(_, written) = &signature.output else {
        return Returned {
            ty: parse_quote!(()),
            constraint: None,
        };
    };
    let mut ty = written.as_ref().clone();
    let mut traits = InferTraits::default();
    traits.visit_type_mut(&mut ty);
    let constraint = if traits.found {
        constraint(signature, written)
    } else {
        None
    };
    Returned { ty, constraint }
}

fn constraint(signature: &Signature, written: &Type) -> Option<Constraint> {
    let generics = &signature.generics;
    let mut written = written.clone();
    WithoutCaptures.visit_type_mut(&mut written);
    let words = handler::words(quote!(#written));
    let parameter = generics.params.iter().map(|param| match param {
        GenericParam::Lifetime(param) => param.lifetime.ident.to_string(),
        GenericParam::Type(param) => param.ident.to_string(),
        GenericParam::Const(param) => param.ident.to_string(),
    });
    let local: BTreeSet<_> = parameter.collect();
    // `Self` is not available in a nested item.
    if words.contains("Self") {
        return None;
    }
    if words.is_disjoint(&local) {
        return Some(Constraint::Here(Box::new(behind_a_reference(written))));
    }
    if handler::words(quote!(#generics)).contains("Self") {
        return None;
    }
    let written = behind_a_reference(written);
    let (parameters, _, conditions) = generics.split_for_impl();
    // An unused function causes a warning, unless its name begins with an underscore.
    Some(Constraint::Generic(
        quote!(fn _returned #parameters (_: &#written) #conditions {}),
    ))
}

/// The type as it is written behind an `&`: `&impl A + B` would be ambiguous.
fn behind_a_reference(ty: Type) -> Type {
    let bounds = match bare(&ty) {
        Type::ImplTrait(traits) => traits.bounds.len(),
        _ => 0,
    };
    if bounds < 2 || matches!(ty, Type::Paren(_)) {
        return ty;
    }
    Type::Paren(TypeParen {
        attrs: Vec::new(),
        paren_token: Paren(Span::mixed_site().located_at(ty.span())),
        elem: Box::new(ty),
    })
}

/// The type without the parentheses, and the invisible groups of a `macro_rules!` variable, around it.
fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Paren(paren) => bare(&paren.elem),
        Type::Group(group) => bare(&group.elem),
        ty => ty,
    }
}

/// Removes every `use<..>`, which the type of an argument cannot have.
struct WithoutCaptures;

impl VisitMut for WithoutCaptures {
    fn visit_type_impl_trait_mut(&mut self, ty: &mut TypeImplTrait) {
        let bounds = std::mem::take(&mut ty.bounds).into_iter();
        ty.bounds = bounds
            .filter(|bound| !matches!(bound, TypeParamBound::PreciseCapture(_)))
            .collect();
        syn::visit_mut::visit_type_impl_trait_mut(self, ty);
    }
}

/// Replaces every `impl Trait` by `_`.
#[derive(Default)]
struct InferTraits {
    found: bool,
}

impl VisitMut for InferTraits {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::ImplTrait(_) = bare(ty) {
            self.found = true;
            *ty = Type::Verbatim(quote_spanned!(ty.span()=> _));
        }
        syn::visit_mut::visit_type_mut(self, ty);
    }
}
