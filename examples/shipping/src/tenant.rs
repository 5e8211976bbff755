//! Who is calling: from a bearer token to a [`Tenant`].
//!
//! Owns the tokens and the extractor that refuses requests without one. The tenant is the scope of idempotency keys,
//! so two tenants may use the same key and never see each other's answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use crate::app::App;
use crate::error::ApiError;

/// A customer of the service, as the request's token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenant(String);

impl Tenant {
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromRequestParts<App> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let tenant = header.and_then(bearer).and_then(|token| app.tokens.tenant(token));
        tenant.cloned().ok_or(ApiError::Unauthorized)
    }
}

/// The token of an `Authorization` value; the scheme's case does not count.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Which token is whose. A real service would verify signed tokens in this place.
pub(crate) struct Tokens(HashMap<String, Tenant>);

impl Tokens {
    /// Reads `token=tenant,token=tenant`. What is wrong is said by the entry's number: tokens are secrets.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for (index, entry) in list.split(',').enumerate() {
            let number = index + 1;
            // From the right, for a token may end in `=`.
            let Some((token, tenant)) = entry.rsplit_once('=') else {
                return Err(format!("entry {number} is not token=tenant"));
            };
            let (token, tenant) = (token.trim(), tenant.trim());
            if token.is_empty() || !token.bytes().all(is_token_byte) {
                return Err(format!("entry {number} has no token of letters, digits and -._~+/="));
            }
            if tenant.is_empty() {
                return Err(format!("entry {number} has no tenant"));
            }
            match tokens.entry(token.to_owned()) {
                Entry::Vacant(vacant) => vacant.insert(Tenant(tenant.to_owned())),
                Entry::Occupied(_) => return Err(format!("entry {number} has the token of an earlier one")),
            };
        }
        Ok(Self(tokens))
    }

    pub(crate) fn tenant(&self, token: &str) -> Option<&Tenant> {
        self.0.get(token)
    }
}

/// What RFC 6750 lets a bearer token be made of.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_may_end_in_equals_signs_and_share_a_tenant() {
        let tokens = Tokens::parse("YQ===acme, b=acme ,c=globex").expect("well-formed");
        let named = |token| tokens.tenant(token).map(Tenant::name);
        assert_eq!(named("YQ=="), Some("acme"));
        assert_eq!(named("b"), Some("acme"));
        assert_eq!(named("c"), Some("globex"));
        assert_eq!(named("acme"), None);
    }

    #[test]
    fn a_malformed_list_is_refused_by_the_number_of_the_entry() {
        let table = [
            ("", "entry 1 "),
            ("a=acme,", "entry 2 "),
            ("s3cret", "entry 1 "),
            ("=acme", "entry 1 "),
            ("a=acme,s3cret=", "entry 2 "),
            ("s3 cret=acme", "entry 1 "),
            ("s3cret=acme,s3cret=globex", "entry 2 "),
        ];
        for (list, entry) in table {
            let Err(reason) = Tokens::parse(list) else {
                panic!("{list:?} was taken")
            };
            assert!(reason.starts_with(entry), "{list:?}: {reason}");
            assert!(!reason.contains("s3cret"), "{reason}");
        }
    }

    #[test]
    fn only_the_bearer_scheme_names_a_token() {
        assert_eq!(bearer("Bearer t"), Some("t"));
        assert_eq!(bearer("bearer  t"), Some("t"));
        assert_eq!(bearer("Basic t"), None);
        assert_eq!(bearer("t"), None);
    }
}
