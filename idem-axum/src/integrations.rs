//! What other crates want to know of a handler's last argument, which is wrapped: the same as of the argument itself.
//!
//! Owns the features `typed-routing` and `aide`. That of utoipa is `openapi`.

#[cfg(feature = "typed-routing")]
mod typed_routing {
    use std::fmt::{self, Display};

    use axum::http::Uri;
    use axum_extra::routing::TypedPath;

    use crate::engine_source::EngineSource;
    use crate::guarded::Guarded;

    /// As the path that it stands for.
    impl<P: Display, E: EngineSource> Display for Guarded<P, E> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.argument().fmt(f)
        }
    }

    /// For a handler whose typed path is its only argument.
    impl<P: TypedPath, E: EngineSource> TypedPath for Guarded<P, E> {
        const PATH: &'static str = P::PATH;

        fn to_uri(&self) -> Uri {
            self.argument().to_uri()
        }
    }
}

#[cfg(feature = "aide")]
mod described_by_aide {
    use aide::OperationInput;
    use aide::generate::GenContext;
    use aide::openapi::{Operation, Response};

    use crate::Execution;
    use crate::engine_source::EngineSource;
    use crate::guarded::Guarded;

    /// As the argument that it stands for.
    impl<T: OperationInput, E: EngineSource> OperationInput for Guarded<T, E> {
        fn operation_input(context: &mut GenContext, operation: &mut Operation) {
            T::operation_input(context, operation);
        }

        fn inferred_early_responses(
            context: &mut GenContext,
            operation: &mut Operation,
        ) -> Vec<(Option<u16>, Response)> {
            T::inferred_early_responses(context, operation)
        }
    }

    /// Nothing that a client sends.
    impl OperationInput for Execution {}

    /// Nothing that a client sends.
    #[cfg(feature = "transaction")]
    impl<D: crate::TransactionDatabase> OperationInput for crate::Transaction<D> {}
}
