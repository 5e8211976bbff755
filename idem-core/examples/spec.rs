//! Explores the specification and prints the figures, or each mutant's shortest counterexample: `cargo xtask spec`.
//!
//! Owns what is printed, and the exit code. Does not own what is explored: `idem_core::spec::explore`.

use std::process::ExitCode;
use std::time::Duration;

use idem_core::spec::explore::{MUTANTS, SETTINGS, Witness, explore};

fn main() -> ExitCode {
    let is_right = match std::env::args().nth(1).as_deref() {
        None => explore_all(),
        Some("--mutants") => explain_mutants(),
        Some(other) => {
            eprintln!("unknown option {other}");
            false
        }
    };
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Explores every setting. Each rule has to hold, and each witness has to be reached.
fn explore_all() -> bool {
    println!(
        "{:<24} {:>10} {:>12} {:>6} {:>8}",
        "setting", "states", "transitions", "depth", "seconds"
    );
    let line = |name: &str, states: usize, transitions: usize, depth: usize, time: Duration| {
        println!(
            "{name:<24} {states:>10} {transitions:>12} {depth:>6} {:>8.1}",
            time.as_secs_f64()
        );
    };
    let mut reached = [false; Witness::ALL.len()];
    let (mut states, mut transitions, mut depth, mut time) = (0, 0, 0, Duration::ZERO);
    for setting in &SETTINGS {
        let figures = match explore(setting) {
            Ok(figures) => figures,
            Err(way) => {
                println!("{}: a rule is broken\n{way}", setting.name);
                return false;
            }
        };
        line(
            setting.name,
            figures.states,
            figures.transitions,
            figures.depth,
            figures.time,
        );
        states += figures.states;
        transitions += figures.transitions;
        depth = depth.max(figures.depth);
        time += figures.time;
        for (reached, (_, witness)) in reached.iter_mut().zip(Witness::ALL) {
            *reached |= figures.seen.has(witness);
        }
    }
    line("together", states, transitions, depth, time);
    let missed = Witness::ALL.iter().zip(reached).filter(|(_, reached)| !reached);
    let missed: Vec<_> = missed
        .map(|((rule, witness), _)| format!("{rule} {witness:?}"))
        .collect();
    if missed.is_empty() {
        println!(
            "no rule is broken, and all {} witnesses are reached",
            Witness::ALL.len()
        );
    } else {
        println!("never reached: {}", missed.join(", "));
    }
    missed.is_empty()
}

/// Prints the shortest way on which each mutant breaks a rule. It has to be the rule that the mutant names.
fn explain_mutants() -> bool {
    let mut is_right = true;
    for mutant in &MUTANTS {
        println!("{} ({}, {})", mutant.name, mutant.rule, mutant.changes());
        let way = mutant.explore();
        is_right &= way.as_ref().is_some_and(|way| way.violation.rule == mutant.rule);
        match way {
            Some(way) => println!("{way}\n"),
            None => println!("  breaks no rule\n"),
        }
    }
    println!("{} mutants", MUTANTS.len());
    is_right
}
