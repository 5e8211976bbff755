//! Explores the specification and prints the figures, or each mutant's shortest counterexample: `cargo xtask spec`.
//!
//! Owns what is printed, and the exit code. Does not own what is explored: `idem_core::spec::explore`, and for durable steps
//! `idem_core::spec::attempts`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use idem_core::spec::attempts;
use idem_core::spec::explore::{MUTANTS, SETTINGS, Witness, explore};

fn main() -> ExitCode {
    let is_right = match std::env::args().nth(1).as_deref() {
        None => explore_all() & explore_steps(),
        Some("--mutants") => explain_mutants() & explain_mutants_of_steps(),
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

fn line(name: &str, states: usize, transitions: usize, depth: usize, time: Duration) {
    let seconds = time.as_secs_f64();
    println!("{name:<24} {states:>10} {transitions:>12} {depth:>6} {seconds:>8.1}");
}

/// Explores every setting of attempts with durable steps. Each rule has to hold, and each witness has to be reached.
fn explore_steps() -> bool {
    let mut seen = BTreeSet::new();
    for setting in &attempts::SETTINGS {
        match attempts::explore(setting) {
            Ok(found) => {
                line(setting.name, found.states, found.transitions, found.depth, found.time);
                seen.extend(found.seen);
            }
            Err(way) => {
                println!("{}: a rule is broken\n{way}", setting.name);
                return false;
            }
        }
    }
    let witnesses = attempts::Witness::ALL;
    let missed: Vec<_> = witnesses.iter().filter(|witness| !seen.contains(witness)).collect();
    if missed.is_empty() {
        println!("no rule is broken, and all {} witnesses are reached", witnesses.len());
    } else {
        println!("never reached: {missed:?}");
    }
    missed.is_empty()
}

/// Prints the shortest way on which each mutant of attempts with durable steps breaks a rule.
fn explain_mutants_of_steps() -> bool {
    let mut is_right = true;
    for mutant in attempts::MUTANTS {
        println!("{} ({:?}, {})", mutant.name, mutant.breaks, mutant.changes());
        match attempts::explore_mutant(mutant) {
            Ok(_) => {
                is_right = false;
                println!("  breaks no rule\n");
            }
            Err(way) => {
                is_right &= way.rule == mutant.breaks;
                println!("{way}\n");
            }
        }
    }
    println!("{} mutants of attempts with steps", attempts::MUTANTS.len());
    is_right
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
