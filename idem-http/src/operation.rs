//! What the attribute says of one handler, as a constant of the expansion, and what the handler is called.
//!
//! Owns what belongs to a handler alone and has no default, beside the policy of its other options; and its identity in
//! stored keys, and as a label.

use std::fmt;
use std::time::Duration;

use http::Method;

use crate::policy::Policy;

/// One `#[idempotent]` handler: how long its answers are replayed, its name, and its other options.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// How long a completed answer is replayed.
    pub ttl: Duration,
    /// Its identity in stored keys, where it does not depend on the route.
    pub name: Option<&'static str>,
    /// Its other options.
    pub policy: Policy,
}

impl Operation {
    /// Completed answers are replayed for so many milliseconds.
    ///
    /// # Panics
    ///
    /// When that is below 100 milliseconds or above ten years, which the attribute has checked; at compile time in a
    /// `const`.
    #[must_use]
    pub const fn new(ttl: u64) -> Self {
        let ttl = Duration::from_millis(ttl);
        let _checked = idem_core::ClaimPolicy::new(ttl);
        Self {
            ttl,
            name: None,
            policy: Policy::new(),
        }
    }

    /// Sets the operation's identity in stored keys; the method and the matched route where nothing is set.
    ///
    /// With a name, records survive a change of the route.
    #[must_use]
    pub const fn with_name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets the options that the attribute does not leave open.
    #[must_use]
    pub const fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }
}

/// Before the method, in the names of layers.
const LAYER: &str = "layer ";

/// The identity of a handler in stored keys: its name, or the method and the path of its requests.
#[derive(Clone, Copy, Debug)]
pub enum OperationName<'a> {
    /// The name that the operation was given.
    Given(&'a str),
    /// A method and the route that matched.
    Matched(&'a Method, &'a str),
    /// A method and the path of a request that no route matched.
    Unmatched(&'a Method, &'a str),
    /// The same of a layer, whose records are never those of a handler inside of it: a method, and the route that matched.
    LayerMatched(&'a Method, &'a str),
    /// A method and the path of a request to a layer that no route matched.
    LayerUnmatched(&'a Method, &'a str),
}

impl<'a> OperationName<'a> {
    /// The name of `operation`, or else of a request by its method and its route, or by its path where none matched.
    #[must_use]
    pub fn of(operation: &Operation, method: &'a Method, route: Option<&'a str>, path: &'a str) -> Self {
        match (operation.name, route) {
            (Some(name), _) => Self::Given(name),
            (None, Some(route)) => Self::Matched(method, route),
            (None, None) => Self::Unmatched(method, path),
        }
    }

    /// The name of what a layer guards.
    ///
    /// It differs from that of an annotated handler at the same route, which may be inside of the layer.
    #[must_use]
    pub const fn of_layer(self) -> Self {
        match self {
            Self::Matched(method, route) => Self::LayerMatched(method, route),
            Self::Unmatched(method, path) => Self::LayerUnmatched(method, path),
            name => name,
        }
    }

    /// As a label, of which there are no more than operations: a path that was not matched by a route, and a method that
    /// is not among the usual ones, are the client's.
    #[must_use]
    pub fn label(&self) -> String {
        let (prefix, method, path) = match *self {
            Self::Given(name) => return name.to_owned(),
            Self::Matched(method, path) => ("", method, path),
            Self::Unmatched(method, _) => ("", method, "unmatched"),
            Self::LayerMatched(method, path) => (LAYER, method, path),
            Self::LayerUnmatched(method, _) => (LAYER, method, "unmatched"),
        };
        let method = match *method {
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE => method.as_str(),
            _ => "other",
        };
        [prefix, method, " ", path].concat()
    }
}

impl fmt::Display for OperationName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(name) => f.write_str(name),
            Self::Matched(method, path) | Self::Unmatched(method, path) => write!(f, "{method} {path}"),
            Self::LayerMatched(method, path) | Self::LayerUnmatched(method, path) => {
                write!(f, "{LAYER}{method} {path}")
            }
        }
    }
}
