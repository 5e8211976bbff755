//! Mistakes the compiler catches: one file a case, named for it, with what it says beside it.

#[test]
fn mistakes_are_reported_on_the_token_at_fault() {
    trybuild::TestCases::new().compile_fail("ui/fail/*.rs");
}
