//! The expansions of the main shapes, as `expansions` has them: a handler, and below it what it expands to.
//!
//! `IDEM_BLESS=1 cargo test -p idem-macros` writes them anew; read the difference.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;
use quote::ToTokens as _;
use syn::{Attribute, Expr, File, Item, ItemFn, Stmt};

use crate::expand;

const BELOW: &str = "\n// expands to\n\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("expansions")
}

/// The one that shows what the feature `utoipa` adds.
const DESCRIBED: &str = "described";

/// Each file with its name and its text.
fn files() -> Vec<(String, String)> {
    let files = fs::read_dir(folder()).expect("the folder of expansions");
    let mut files: Vec<_> = files
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_stem().expect("a name").display().to_string();
            (name, fs::read_to_string(path).expect("a text"))
        })
        .filter(|(name, _)| cfg!(feature = "utoipa") || name != DESCRIBED)
        .collect();
    files.sort();
    files
}

/// The expansion of a handler that is written with its attribute.
fn expansion(handler: &str) -> String {
    let mut handler: ItemFn = syn::parse_str(handler).expect("a function");
    let is_ours = |attribute: &Attribute| attribute.path().is_ident("idempotent");
    let at = handler.attrs.iter().position(is_ours).expect("our attribute");
    let attribute = handler.attrs.remove(at);
    let options: TokenStream = attribute.parse_args().expect("tokens");
    let expansion = expand::idempotent(&options, &handler.into_token_stream());
    let mut expansion = syn::parse2(expansion).expect("items");
    take_out_the_warning(&mut expansion);
    prettyplease::unparse(&expansion)
}

/// Removes the statements that the feature `utoipa` adds to every handler without a description below it. `tests/ui` shows their
/// effect.
fn take_out_the_warning(expansion: &mut File) {
    for item in &mut expansion.items {
        if cfg!(feature = "utoipa")
            && let Item::Fn(handler) = item
            && let Some(Stmt::Expr(Expr::Block(_), None)) = handler.block.stmts.first()
        {
            handler.block.stmts.remove(0);
        }
    }
}

fn parts(text: &str) -> (&str, &str) {
    let (handler, expansion) = text.split_once(BELOW).unwrap_or((text.trim_end(), ""));
    (handler.trim_end(), expansion)
}

#[test]
fn handlers_expand_to_what_is_written_below_them() {
    let bless = std::env::var_os("IDEM_BLESS").is_some();
    for (name, text) in files() {
        let (handler, written) = parts(&text);
        let expansion = expansion(handler);
        if bless {
            let text = format!("{handler}\n{BELOW}{expansion}");
            fs::write(folder().join(name + ".rs"), text).expect("written");
        } else {
            assert_eq!(written, expansion, "{name}: IDEM_BLESS=1 writes it anew");
        }
    }
}

#[test]
fn a_plain_handler_expands_to_few_lines_more_than_it_has() {
    let (_, text) = files().into_iter().find(|(name, _)| name == "plain").expect("plain");
    let (handler, _) = parts(&text);
    let expansion = expansion(handler);
    let without_attribute = handler.lines().skip(1).collect::<Vec<_>>().join("\n");
    let bare = prettyplease::unparse(&syn::parse_str(&without_attribute).expect("a function"));
    let generated = expansion.lines().count() - bare.lines().count();
    assert!(generated <= 25, "{generated} lines");
}

/// But for the branch that is never taken, and says what type the body has.
#[test]
fn no_expansion_decides_anything() {
    for (name, text) in files() {
        let (handler, expansion) = parts(&text);
        assert_eq!(
            expansion.matches("if ").count(),
            expansion.matches("if false {").count(),
            "{name}"
        );
        for word in ["match ", "loop ", "for ", "while "] {
            let ours = expansion.matches(word).count() - handler.matches(word).count();
            assert_eq!(ours, 0, "{name} decides by {word}");
        }
    }
}

/// `crate = …` would be of no use otherwise.
#[test]
fn at_another_path_nothing_is_named_by_the_usual_one() {
    for (name, text) in files() {
        let (handler, _) = parts(&text);
        if handler.contains("crate =") {
            assert!(!expansion(handler).contains("idem_axum"), "{name}");
        }
    }
    let every_option = files().into_iter().find(|(name, _)| name == "every_option");
    assert!(every_option.is_some_and(|(_, text)| text.contains("crate =")));
}

#[test]
fn the_page_on_the_expansion_shows_these() {
    let page = include_str!("../../docs/expansion.md");
    for name in ["plain", "expressions", "engine_of_an_argument"] {
        let (_, text) = files()
            .into_iter()
            .find(|(file, _)| file == name)
            .expect("an expansion");
        let (handler, expansion) = parts(&text);
        for shown in [handler, expansion.trim_end()] {
            assert!(
                page.contains(&format!("```rust\n{shown}\n```")),
                "{name} is not in docs/expansion.md:\n{shown}"
            );
        }
    }
}
