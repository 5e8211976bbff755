//! Whatever the macro is given, it answers with tokens: a panic of it is an error at the whole attribute, without a word.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::expand;

/// Attributes, between which and in which tokens are moved.
const ATTRIBUTES: [&str; 6] = [
    r#"ttl = "24h", scope = global"#,
    r#"ttl = "1h 30m", scope = (tenant, "a", format!("{id:>w$}")), key = order.id, fingerprint = (order, 'c', 1.0)"#,
    r#"scope = "tenant.id", ttl = "99999999999999999999d", max_response = "18446744073709551616MiB", lease = "0s""#,
    r#"engine = app.idempotency, crate = ::renamed, header = "é", name = "", required = maybe, in_flight = "wait""#,
    r#"ttl, scope =, = wait, wait = "", r#name = b"x", store = c"final", crate = "a::b<c>", on_outage = -1"#,
    "",
];

/// Functions, and what is none.
const ITEMS: [&str; 10] = [
    "async fn f() {}",
    r#"/// Doc.
    #[axum::debug_handler] #[utoipa::path(post, path = "/", extensions(("a" = json!(1))))]
    pub(in crate::a) async fn r#f<'a, T: 'a + ?Sized, const N: usize>(
        #[allow(unused)] Path((mut tenant, ref id)): Path<(String, u8)>, Json(Order { item, id: _, .. }): Json<Order>,
    ) -> Result<impl A + Send + use<'a, T, N>, (StatusCode, [impl B<Item = impl C + 'a>; N])> where T: for<'b> Tr<'b> {
        #![allow(unused)]
        #[cfg(x)] let a = |b: &'a _| -> ! { loop {} };
        macro_rules! m { ($($t:tt)*) => {} } m! { # ! } a?.await
    }"#,
    "async fn f(self: Self, &(ref a, mut b @ Some(_)): &(A, B), [c, .., d]: [u8; 4], _: _, X: X, ..) -> impl A + use<> {}",
    "async unsafe extern \"C\" fn f(x: ::idem_axum::__private::Guarded<()>) -> (impl A + 'static) { #[a] x }",
    "const fn f(a: impl A + B, b: &(dyn C + D), c: fn(u8, ..) -> !, d: m!(x), e: <T as U>::V) -> & 'static dyn A;",
    "async fn f(-1..=1: u8, \"a\" | 'b': &str, A::<B>::C(x) | m!(x): C, box y: D, global: E) -> ! {}",
    "async fn f() -> for<'a> fn(&'a u8) -> impl A {}",
    "async fn f<'a, T: A>(Json(order): Json<T>, app: App) -> impl A<T> + Send + 'a + use<'a, T> where T: B { order }",
    "struct S { a: u8 } impl S { fn f(&self) {} }",
    "",
];

/// Numbers that depend on `seed` alone.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = BuildHasherDefault::<DefaultHasher>::default().hash_one(self.0);
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or(0)
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.below(all.len())).cloned()
    }

    /// The tokens with some taken out, doubled, exchanged, wrapped or replaced by one of `others`.
    fn disturbed(&mut self, tokens: TokenStream, others: &[TokenTree]) -> TokenStream {
        let mut disturbed = Vec::new();
        for token in tokens {
            let token = match token {
                TokenTree::Group(group) => {
                    let inner = self.disturbed(group.stream(), others);
                    TokenTree::Group(Group::new(group.delimiter(), inner))
                }
                token => token,
            };
            match self.below(200) {
                0 => {}
                1 => disturbed.extend([token.clone(), token]),
                2 => disturbed.extend(self.one_of(others)),
                3 => disturbed.extend(self.one_of(others).into_iter().chain([token])),
                4 => disturbed.push(self.wrapped(token)),
                5 => {
                    disturbed.push(token);
                    let (last, other) = (disturbed.len() - 1, self.below(disturbed.len()));
                    disturbed.swap(last, other);
                }
                _ => disturbed.push(token),
            }
        }
        disturbed.into_iter().collect()
    }

    fn wrapped(&mut self, token: TokenTree) -> TokenTree {
        let delimiters = [
            Delimiter::None,
            Delimiter::Parenthesis,
            Delimiter::Bracket,
            Delimiter::Brace,
        ];
        let delimiter = delimiters[self.below(delimiters.len())];
        TokenTree::Group(Group::new(delimiter, token.into()))
    }
}

fn tokens(text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every token of every text, those in groups as well.
fn vocabulary() -> Vec<TokenTree> {
    fn flat(tokens: TokenStream) -> Vec<TokenTree> {
        let inner = |token: TokenTree| match token.clone() {
            TokenTree::Group(group) => [vec![token], flat(group.stream())].concat(),
            _ => vec![token],
        };
        tokens.into_iter().flat_map(inner).collect()
    }
    ATTRIBUTES
        .iter()
        .chain(&ITEMS)
        .flat_map(|text| flat(tokens(text)))
        .collect()
}

#[test]
fn no_input_makes_the_macro_panic() {
    let vocabulary = vocabulary();
    let rounds = 4000;
    for seed in 0..rounds {
        let mut random = Random(seed);
        let (attribute, item) = (random.one_of(&ATTRIBUTES), random.one_of(&ITEMS));
        let [attribute, item] = [attribute, item].map(|text| tokens(text.unwrap_or_default()));
        let attribute = match seed % 2 {
            0 => tokens(ATTRIBUTES[0]),
            _ => random.disturbed(attribute, &vocabulary),
        };
        let item = random.disturbed(item, &vocabulary);
        let texts = format!("seed {seed}: #[idempotent({attribute})] {item}");
        let expansion = std::panic::catch_unwind(|| expand::idempotent(&attribute, &item));
        assert!(expansion.is_ok(), "{texts}");
    }
}
