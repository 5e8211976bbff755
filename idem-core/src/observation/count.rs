//! The counts of requests, through the `metrics` facade.
//!
//! Without the feature `metrics`, every function here does nothing.

#[cfg(feature = "metrics")]
mod figures {
    use crate::RecordKey;
    use metrics::{Label, SharedString, Unit, describe_counter};

    /// The count of requests that one request will add to.
    #[derive(Debug)]
    pub(crate) struct Count {
        operation: SharedString,
        key: Option<String>,
    }

    impl Count {
        pub(crate) fn new(operation: impl FnOnce() -> String) -> Self {
            Self {
                operation: operation().into(),
                key: None,
            }
        }

        pub(crate) fn label(&mut self, record: &RecordKey) {
            self.key = Some(record.shown_key().to_string());
        }

        pub(crate) fn one(&mut self, figure: &'static str, outcome: &'static str) {
            let mut labels = vec![
                Label::new("operation", self.operation.clone()),
                Label::from_static_parts("outcome", outcome),
            ];
            labels.extend(self.key.take().map(|key| Label::new("key", key)));
            metrics::counter!(figure, labels).increment(1);
        }
    }

    /// Describes the figures to the recorder that is installed.
    pub fn describe() {
        describe_counter!(
            "idem_requests_total",
            Unit::Count,
            "Requests to annotated handlers whose extractors accepted them, by operation and outcome."
        );
        describe_counter!(
            "idem_observed_requests_total",
            Unit::Count,
            "Requests that were only observed, by operation and the outcome that they would have had."
        );
    }
}

#[cfg(not(feature = "metrics"))]
mod figures {
    use crate::RecordKey;

    #[derive(Debug)]
    pub(crate) struct Count;

    impl Count {
        pub(crate) fn new(_: impl FnOnce() -> String) -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "the twin of what counts")]
        pub(crate) fn label(&mut self, _: &RecordKey) {}

        #[expect(clippy::unused_self, reason = "the twin of what counts")]
        pub(crate) fn one(&mut self, _: &'static str, _: &'static str) {}
    }

    /// Describes nothing: there are no figures.
    pub fn describe() {}
}

pub(super) use figures::Count;
pub use figures::describe;
