//! A small campaign in each test run, and the named seeds that once found something.

use baton_sim::campaign::{self, Counts};

/// Four quarters, so that several cores share them.
const SEEDS: u64 = 150;

/// So often must each quarter meet each thing.
const LEAST: u64 = 1;

fn quarter(number: u64) {
    let counts = campaign::run(number * SEEDS, SEEDS).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(counts.unmet(LEAST), Vec::<&str>::new(), "met too seldom to prove anything");
}

#[test]
fn no_world_breaks_a_rule_first_quarter() {
    quarter(0);
}

#[test]
fn no_world_breaks_a_rule_second_quarter() {
    quarter(1);
}

#[test]
fn no_world_breaks_a_rule_third_quarter() {
    quarter(2);
}

#[test]
fn no_world_breaks_a_rule_last_quarter() {
    quarter(3);
}

/// A run that was resumed waited in line for its own plan's locks behind a step that waited for them.
#[test]
fn seed_119_resumed_run_behind_a_waiter() {
    campaign::play(119, &mut Counts::default(), false).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// A step waited in line behind a run that wanted the same lock and another one, which the step's own run had.
#[test]
fn seed_1445_step_behind_one_who_waits_for_its_run() {
    campaign::play(1445, &mut Counts::default(), false).unwrap_or_else(|wrong| panic!("{wrong}"));
}
