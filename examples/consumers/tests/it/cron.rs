//! Two processes, one run for each scheduled time.

use std::collections::BTreeMap;
use std::process::Command;

use idem_tests::SqliteFile;

use crate::program::Program;

#[tokio::test(flavor = "multi_thread")]
async fn each_scheduled_time_is_reported_by_one_of_two_processes() {
    let file = SqliteFile::create().await;
    let start = || {
        Program::start(
            Command::new(env!("CARGO_BIN_EXE_cron"))
                .arg(file.path())
                .env("PERIOD", "1"),
        )
    };
    let mut processes = [start(), start()];
    // By scheduled time: who ran the report, and who each process says ran it.
    let mut ran: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while told.values().filter(|by| by.len() == 2).count() < 2 {
        for process in &mut processes {
            loop {
                let line = process.line();
                let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
                let time = words[1].clone();
                match &*words[0] {
                    "reporting" => ran.entry(time).or_default().push(process.id()),
                    _ => break told.entry(time).or_default().push(words[3].clone()),
                }
            }
        }
    }
    for (time, by) in &told {
        let [by_one] = ran[time][..] else {
            panic!("{time} was reported by {:?}", ran[time])
        };
        assert!(
            by.iter().all(|by| *by == by_one.to_string()),
            "{time}: {by:?} and {by_one}"
        );
    }
}
