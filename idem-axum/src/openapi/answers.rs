//! What a client sends and gets besides what the handler's author describes.
//!
//! Owns the words for it, and how ours and the author's descriptions of one status become one.

use axum::http::StatusCode;
use idem_core::AfterCrash;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder, Schema, SchemaFormat};
use utoipa::openapi::{
    Components, Content, ContentBuilder, Header, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Type,
};

use super::{Mark, PROBLEM_SCHEMA};
use crate::Idempotency;
use idem_http::key::MAX_STRING_LEN;
use idem_http::{IdempotencyProblem, InFlight, Policy, ProblemDetails, Settings, Setup as _};

const PROBLEM_JSON: &str = "application/problem+json";

/// A bare key as a pattern of ECMA-262: no comma, no quotation mark at its beginning, no space at either end.
const BARE: &str = r"[!#-+\--~]([ -+\--~]{0,253}[!-+\--~])?";
/// A key as an RFC 9651 String.
const STRING: &str = r#""([ !#-\[\]-~]|\\["\\]){1,255}""#;

/// What is described of one handler.
pub(super) struct Answers<'a> {
    header: Option<(String, bool)>,
    policy: Policy,
    transacts: bool,
    /// Whether the number of handlers that run at once is limited.
    is_limited: bool,
    settings: &'a Settings,
}

impl<'a> Answers<'a> {
    pub(super) fn new(mark: &Mark, idempotency: &'a Idempotency) -> Self {
        let settings = &**idempotency.settings();
        Self {
            header: mark.header(&settings.defaults),
            policy: mark.policy(settings.defaults),
            transacts: mark.transacts(),
            is_limited: idempotency.engine().max_in_flight().is_some(),
            settings,
        }
    }

    pub(super) fn describe(&self, operation: &mut Operation, components: &Components) {
        if let Some((name, required)) = &self.header {
            let parameters = operation.parameters.get_or_insert_default();
            let is_it = |other: &Parameter| {
                matches!(other.parameter_in, ParameterIn::Header) && other.name.eq_ignore_ascii_case(name)
            };
            parameters.retain(|other| !matches!(other, RefOr::T(other) if is_it(other)));
            parameters.push(RefOr::T(self.parameter(name, *required)));
        }
        let responses = &mut operation.responses.responses;
        for (status, response) in responses.iter_mut() {
            if self.is_stored(status)
                && let Some(response) = own(response, components)
            {
                response
                    .headers
                    .insert("Idempotent-Replayed".to_owned(), marker().into());
            }
        }
        for (status, ours) in self.responses() {
            match responses.get_mut(status.as_str()) {
                None => {
                    responses.insert(status.as_str().to_owned(), ours.into());
                }
                Some(theirs) => {
                    if let Some(theirs) = own(theirs, components) {
                        add(theirs, ours);
                    }
                }
            }
        }
    }

    fn parameter(&self, name: &str, required: bool) -> Parameter {
        // Of the value as it is sent: the quotation marks and backslashes of a String count.
        let schema = text().max_length(Some(MAX_STRING_LEN));
        let (schema, form) = if self.settings.strict_keys {
            let quoted = schema.min_length(Some(3)).pattern(Some(format!("^{STRING}$")));
            (quoted, "as an RFC 9651 String: in quotation marks")
        } else {
            let either = format!("^({BARE}|{STRING})$");
            let either = schema.min_length(Some(1)).pattern(Some(either));
            (either, "bare or as an RFC 9651 String")
        };
        let without = if required {
            ""
        } else {
            " Without it, the request is not protected."
        };
        let description = format!(
            "Names this request among all of its sender's, so that it can be sent again: a retry has the same key and gets \
             the same answer, and a new request has a new one. 1 to 255 printable ASCII characters, {form}; the quotation \
             marks and backslashes of a String do not count.{without}"
        );
        ParameterBuilder::new()
            .name(title_case(name))
            .parameter_in(ParameterIn::Header)
            .required(if required { Required::True } else { Required::False })
            .description(Some(description))
            .schema(Some(schema))
            .build()
    }

    /// Whether answers of a status, as a document names it, are stored.
    fn is_stored(&self, status: &str) -> bool {
        // A range, such as 4XX, as its first one.
        let first = status.replace(['X', 'x'], "0");
        let status = first.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
        status.is_none_or(|status| self.policy.store().include(status))
    }

    /// The answers in place of the handler's, by status.
    fn responses(&self) -> Vec<(StatusCode, Response)> {
        let accepts = self.policy.in_flight() == InFlight::Accept;
        let refuses = self.policy.after_crash() == AfterCrash::Refuse
            || self.policy.max_attempts().is_some()
            || self.policy.rerun_within().is_some();
        let needs_header = self.header.as_ref().is_some_and(|(_, required)| *required);
        let problems = [
            (IdempotencyProblem::KeyMissing, needs_header),
            (IdempotencyProblem::KeyInvalid, true),
            (IdempotencyProblem::InFlight, !accepts),
            (IdempotencyProblem::OutcomeUnknown, refuses),
            (IdempotencyProblem::ResponseNotStored, true),
            (IdempotencyProblem::KeyReused, true),
            (IdempotencyProblem::RolledBack { may_pass: false }, self.transacts),
            (IdempotencyProblem::BackendUnavailable, true),
            (IdempotencyProblem::TooBusy, self.is_limited),
            (IdempotencyProblem::RolledBack { may_pass: true }, self.transacts),
            (IdempotencyProblem::NotCommitted, self.transacts),
        ];
        let problems: Vec<_> = problems.into_iter().filter(|(_, can_be)| *can_be).collect();
        let mut responses: Vec<_> = problems
            .chunk_by(|(one, _), (next, _)| one.status() == next.status())
            .map(|same| {
                let same: Vec<_> = same.iter().map(|(problem, _)| self.details(*problem)).collect();
                (same[0].problem.status(), self.response(&same))
            })
            .collect();
        if accepts {
            let accepted = ResponseBuilder::new()
                .description(
                    "An equal request with this idempotency key is on its way; try again later for its answer.",
                )
                .header("Retry-After", retry_after())
                .header("Idempotency-Code", code(["accepted"]));
            responses.push((StatusCode::ACCEPTED, accepted.build()));
        }
        responses
    }

    fn details(&self, problem: IdempotencyProblem) -> ProblemDetails {
        ProblemDetails::new(problem, self.settings.documentation.as_deref())
    }

    /// One status, with each of the problems that have it.
    fn response(&self, problems: &[ProblemDetails]) -> Response {
        let item = |details: &ProblemDetails| format!("- `{}`: {}", details.problem.code(), details.detail);
        let lines: Vec<_> = problems.iter().map(item).collect();
        let codes = problems.iter().map(|details| details.problem.code());
        let mut response = ResponseBuilder::new()
            .description(lines.join("\n"))
            .header("Idempotency-Code", code(codes));
        if self.settings.problem_response.is_none() {
            response = response.content(PROBLEM_JSON, content(problems));
        }
        if problems.iter().any(|details| details.retry_after.is_some()) {
            response = response.header("Retry-After", retry_after());
        }
        if self.settings.documentation.is_some() {
            let description = "Where the problem is documented, as `rel=\"describedby\"`.";
            let link = HeaderBuilder::new().schema(Some(text())).description(Some(description));
            response = response.header("Link", link.build());
        }
        response.build()
    }
}

/// The name of a header as people write it.
fn title_case(name: &str) -> String {
    let parts = name.split('-').map(|part| match part.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("-")
}

/// The author's own description of a response, in the operation itself from now on where it was a reference before. One
/// that leads nowhere is left alone.
fn own<'a>(response: &'a mut RefOr<Response>, components: &Components) -> Option<&'a mut Response> {
    if let RefOr::Ref(reference) = response {
        let name = reference.ref_location.strip_prefix("#/components/responses/")?;
        *response = components.responses.get(name)?.clone();
    }
    match response {
        RefOr::T(response) => Some(response),
        RefOr::Ref(_) => None,
    }
}

/// Adds our description of a response to the author's.
fn add(theirs: &mut Response, ours: Response) {
    theirs.description = [&theirs.description, &ours.description]
        .into_iter()
        .filter(|description| !description.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join("\n\n");
    for (name, header) in ours.headers {
        theirs.headers.entry(name).or_insert(header);
    }
    for (media_type, content) in ours.content {
        match theirs.content.get_mut(&media_type) {
            None => {
                theirs.content.insert(media_type, content);
            }
            Some(RefOr::T(own)) => either(own, content),
            Some(RefOr::Ref(_)) => {}
        }
    }
}

/// Both have problems of one media type: a body is one of the author's or one of ours, and may look like both.
fn either(theirs: &mut Content, ours: RefOr<Content>) {
    let RefOr::T(ours) = ours else { return };
    theirs.schema = match (theirs.schema.take(), ours.schema) {
        (Some(theirs), Some(ours)) => {
            let either = AnyOfBuilder::new().item(theirs).item(ours).build();
            Some(RefOr::T(Schema::AnyOf(either)))
        }
        // Without a schema, a body may be anything.
        (theirs, _) => theirs,
    };
    theirs.examples.extend(ours.examples);
}

/// The body of some problems, with an example of each.
fn content(problems: &[ProblemDetails]) -> Content {
    let codes = problems.iter().map(|details| details.problem.code());
    let code = text().enum_values(Some(codes));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(PROBLEM_SCHEMA))
        .item(ObjectBuilder::new().property("code", code));
    let examples = problems.iter().map(|details| {
        let example = ExampleBuilder::new().summary(details.title).value(Some(details.body()));
        (details.problem.code(), example.build())
    });
    ContentBuilder::new()
        .schema(Some(Schema::AllOf(schema.build())))
        .examples_from_iter(examples)
        .build()
}

/// The body of every problem.
pub(super) fn problem_schema() -> RefOr<Schema> {
    let uri = || text().format(Some(SchemaFormat::Custom("uri-reference".to_owned())));
    let describe = |schema: ObjectBuilder, description: &str| schema.description(Some(description));
    let status = ObjectBuilder::new().schema_type(Type::Integer);
    // Problems of two statuses may share a word.
    let mut codes = IdempotencyProblem::ALL
        .iter()
        .map(|problem| problem.code())
        .collect::<Vec<_>>();
    codes.dedup();
    let schema = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("Why a request was answered in place of its operation (RFC 9457)."))
        .property(
            "type",
            describe(uri(), "Where the problem is documented, or `about:blank`."),
        )
        .property("title", describe(text(), "The problem in a few words."))
        .property("status", describe(status, "The status of the answer."))
        .property(
            "detail",
            describe(text(), "What is wrong with this request, and what to do."),
        )
        .property(
            "code",
            describe(text().enum_values(Some(codes)), "The stable word for the problem."),
        );
    let members = ["type", "title", "status", "detail", "code"];
    let schema = members.into_iter().fold(schema, ObjectBuilder::required);
    RefOr::T(Schema::Object(schema.build()))
}

fn marker() -> Header {
    let schema = ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .enum_values(Some([true]));
    let description = "There where this is the answer to an earlier request with the same idempotency key.";
    HeaderBuilder::new()
        .schema(Some(schema))
        .description(Some(description))
        .build()
}

fn code(codes: impl IntoIterator<Item = &'static str>) -> Header {
    let description = "There where the answer was given in place of the operation's: the stable word for the case. \
                       `not-final` where a service behind this one gave it.";
    let codes: Vec<_> = codes.into_iter().chain(["not-final"]).collect();
    HeaderBuilder::new()
        .schema(Some(text().enum_values(Some(codes))))
        .description(Some(description))
        .build()
}

fn retry_after() -> Header {
    let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    HeaderBuilder::new()
        .schema(Some(schema))
        .description(Some("Where trying again may help: after so many seconds."))
        .build()
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}
