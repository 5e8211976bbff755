//! Handlers under the attribute that compile, run once and are replayed: one file a case, named for it.

use std::collections::BTreeSet;

use axum::Router;
use axum::routing::MethodRouter;
use idem_tests::Service;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

mod answers_impl_trait;
mod answers_impl_traits_with_bounds;
mod answers_types_of_each_form;
mod answers_what_only_the_return_type_tells;
mod answers_with_a_verdict;
mod argument_patterns;
mod arguments_named_as_in_the_expansion;
mod arguments_used_by_the_attribute_alone;
mod associated_function;
mod associated_function_of_a_generic_type;
mod attribute_by_its_path;
mod borrows_across_an_await;
mod bounds_of_every_option;
mod called_directly;
mod conditional_handlers;
mod crate_at_another_path;
mod debugged_above;
mod debugged_below;
mod denied_lints;
mod described_above;
mod described_below;
mod described_beside_another_of_its_name;
mod early_returns;
mod engine_of_a_field;
mod engine_of_a_method;
mod every_option;
mod every_word;
mod forbidden_lints;
mod generic_answer;
mod generic_handler;
mod handler_inside_a_function;
mod lint_attributes;
mod made_by_a_macro;
mod no_arguments;
mod no_implicit_prelude;
mod plain;
mod raw_identifiers;
mod scope_in_quotes;
mod scope_of_a_macro;
mod scope_of_a_method_call;
mod scope_of_a_nested_tuple;
mod shadowed_prelude;
mod sixteen_arguments;
mod traced_above;
mod traced_below;
mod unit_struct_arguments;
mod visibility_and_documentation;

/// What the requests of all cases carry.
#[derive(Serialize, Deserialize)]
pub(crate) struct NewOrder {
    pub(crate) item: String,
    pub(crate) order_id: String,
}

type Case = (&'static str, fn() -> MethodRouter);

const CASES: [Case; 47] = [
    ("answers_impl_trait", answers_impl_trait::route),
    (
        "answers_impl_traits_with_bounds",
        answers_impl_traits_with_bounds::route,
    ),
    ("answers_types_of_each_form", answers_types_of_each_form::route),
    (
        "answers_what_only_the_return_type_tells",
        answers_what_only_the_return_type_tells::route,
    ),
    ("answers_with_a_verdict", answers_with_a_verdict::route),
    ("argument_patterns", argument_patterns::route),
    (
        "arguments_named_as_in_the_expansion",
        arguments_named_as_in_the_expansion::route,
    ),
    (
        "arguments_used_by_the_attribute_alone",
        arguments_used_by_the_attribute_alone::route,
    ),
    ("associated_function", associated_function::route),
    (
        "associated_function_of_a_generic_type",
        associated_function_of_a_generic_type::route,
    ),
    ("attribute_by_its_path", attribute_by_its_path::route),
    ("borrows_across_an_await", borrows_across_an_await::route),
    ("bounds_of_every_option", bounds_of_every_option::route),
    ("called_directly", called_directly::route),
    ("conditional_handlers", conditional_handlers::route),
    ("crate_at_another_path", crate_at_another_path::route),
    ("debugged_above", debugged_above::route),
    ("debugged_below", debugged_below::route),
    ("denied_lints", denied_lints::route),
    ("described_above", described_above::route),
    ("described_below", described_below::route),
    (
        "described_beside_another_of_its_name",
        described_beside_another_of_its_name::route,
    ),
    ("early_returns", early_returns::route),
    ("engine_of_a_field", engine_of_a_field::route),
    ("engine_of_a_method", engine_of_a_method::route),
    ("every_option", every_option::route),
    ("every_word", every_word::route),
    ("forbidden_lints", forbidden_lints::route),
    ("generic_answer", generic_answer::route),
    ("generic_handler", generic_handler::route),
    ("handler_inside_a_function", handler_inside_a_function::route),
    ("lint_attributes", lint_attributes::route),
    ("made_by_a_macro", made_by_a_macro::route),
    ("no_arguments", no_arguments::route),
    ("no_implicit_prelude", no_implicit_prelude::route),
    ("plain", plain::route),
    ("raw_identifiers", raw_identifiers::route),
    ("scope_in_quotes", scope_in_quotes::route),
    ("scope_of_a_macro", scope_of_a_macro::route),
    ("scope_of_a_method_call", scope_of_a_method_call::route),
    ("scope_of_a_nested_tuple", scope_of_a_nested_tuple::route),
    ("shadowed_prelude", shadowed_prelude::route),
    ("sixteen_arguments", sixteen_arguments::route),
    ("traced_above", traced_above::route),
    ("traced_below", traced_below::route),
    ("unit_struct_arguments", unit_struct_arguments::route),
    ("visibility_and_documentation", visibility_and_documentation::route),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_runs_once_and_is_replayed() {
    let routes = CASES.iter().fold(Router::new(), |routes, (name, route)| {
        routes.route(&format!("/{name}/{{tenant}}"), route().with_state(()))
    });
    let service = Service::memory(routes).await;
    for (name, _) in CASES {
        let call = || {
            let call = service.client.call(Method::POST, &format!("/{name}/acme"));
            call.key("k").json(&json!({ "item": "pump", "order_id": "o-1" })).send()
        };
        let first = call().await;
        assert!(first.status.is_success(), "{name}: {first:?}");
        call().await.assert_replays(&first);
    }
}

#[test]
fn every_file_is_a_case() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/pass");
    let files = std::fs::read_dir(folder).expect("this folder").map(|file| {
        let path = file.expect("its files").path();
        path.file_stem().expect("a name").display().to_string()
    });
    let files: BTreeSet<_> = files.filter(|name| name != "mod").collect();
    let cases: BTreeSet<_> = CASES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, cases);
}
