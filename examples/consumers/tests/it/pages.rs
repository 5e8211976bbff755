//! The guides of `idem-task` show the programs as they are.

/// The page of the guide, and the program that it shows, from this package.
macro_rules! shown {
    ($page:literal, $program:literal) => {
        (
            include_str!(concat!("../../../../idem-task/src/guide/", $page, ".md")),
            include_str!(concat!("../../", $program)),
            $program,
        )
    };
}

#[test]
fn each_page_shows_its_program() {
    let pages = [
        shown!("consumers", "src/lib.rs"),
        shown!("cron", "src/bin/cron.rs"),
        shown!("kafka", "../brokers/src/bin/kafka.rs"),
        shown!("rabbitmq", "../brokers/src/bin/rabbitmq.rs"),
        shown!("redis_streams", "src/bin/redis_streams.rs"),
        shown!("sqs", "src/bin/sqs.rs"),
    ];
    for (page, program, path) in pages {
        let shown = format!("```rust,ignore\n{program}```\n");
        assert!(page.contains(&shown), "copy {path} to its page: they differ");
    }
}
