//! What steps print: all of it, in order, byte for byte, at a bounded cost.

mod support;

use std::time::{Duration, Instant};

use baton_actions::{HostEvent, Stop};
use support::{World, code, key};

const MIB: usize = 1024 * 1024;

/// The most memory this process has had, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Runs rounds of the host until attempt `number` has ended, and hands each piece of output to `take`.
fn stream(world: &mut World, number: u32, mut take: impl FnMut(u32, &[u8])) {
    let start = Instant::now();
    let mut events = Vec::new();
    loop {
        assert!(start.elapsed() < support::PATIENCE, "it takes too long");
        world.host.wait(Some(Duration::from_millis(100)), &mut events).unwrap();
        let mut over = false;
        for event in events.drain(..) {
            match event {
                HostEvent::Output { key, bytes } => take(key.number, &bytes),
                HostEvent::Ended { key: ended, end } => {
                    over |= ended == key(number);
                    world.ended.insert(ended.number, *end);
                }
                other => panic!("{other:?}"),
            }
        }
        if over {
            return;
        }
    }
}

#[test]
fn a_flood_is_counted_to_the_last_byte_in_little_memory() {
    let mut world = World::new();
    let before = peak_memory();
    let step = world.start(world.job(&["head", "-c", &(256 * MIB).to_string(), "/dev/zero"]));
    let mut bytes = 0;
    let mut largest = 0;
    stream(&mut world, step, |_, piece| {
        bytes += piece.len();
        largest = largest.max(piece.len());
        assert!(piece.iter().all(|byte| *byte == 0));
    });
    assert_eq!(bytes, 256 * MIB);
    assert!(largest <= MIB, "one piece has {largest} bytes");
    let grown = peak_memory() - before;
    assert!(grown < 8 * MIB, "memory grew by {grown} bytes");
}

#[test]
fn one_round_holds_a_bounded_amount_however_many_print() {
    let mut world = World::new();
    for _ in 0..24 {
        world.start(world.job(&["cat", "/dev/zero"]));
    }
    let mut events = Vec::new();
    let mut total = 0;
    while total < 64 * MIB {
        world.host.wait(Some(Duration::from_millis(100)), &mut events).unwrap();
        let size: usize = events
            .drain(..)
            .map(|event| match event {
                HostEvent::Output { bytes, .. } => bytes.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert!(size <= 2 * MIB, "one round brought {size} bytes");
        total += size;
    }
    for number in 1..=24 {
        world.stop(number, Stop::Kill);
    }
    for number in 1..=24 {
        world.until("all are gone", |world| {
            world.printed.clear();
            world.ended.contains_key(&number)
        });
    }
}

#[test]
fn a_chatty_step_does_not_hold_up_a_quiet_one() {
    let mut world = World::new();
    let chatty = world.start(world.job(&["cat", "/dev/zero"]));
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let start = Instant::now();
        let quiet = world.start(world.job(&["echo", "quiet"]));
        let mut text = Vec::new();
        stream(&mut world, quiet, |number, piece| {
            if number == quiet {
                text.extend_from_slice(piece);
            }
        });
        assert_eq!(text, b"quiet\n");
        longest = longest.max(start.elapsed());
    }
    assert!(longest < Duration::from_secs(2), "a quiet step took {longest:?} beside a chatty one");
    world.stop(chatty, Stop::Kill);
    stream(&mut world, chatty, |_, _| {});
}

#[test]
fn bytes_of_every_value_come_back_as_they_were() {
    let mut world = World::new();
    let every: Vec<u8> = (0..=255).collect();
    let mut expected = Vec::new();
    while expected.len() < 3 * MIB + 17 {
        expected.extend_from_slice(&every);
        expected.extend_from_slice(b"\x1b]0;title\x07\r\n\xe2\x80\xae::set-output name=x::y\n");
    }
    let mut job = world.job(&["cat"]);
    job.input = Some(expected.clone());
    let step = world.start(job);
    world.end_of(step);
    assert!(world.printed[&step] == expected, "{} bytes came of {}", world.printed[&step].len(), expected.len());
}

#[test]
fn standard_output_and_error_keep_their_order_through_many_lines() {
    let mut world = World::new();
    let (_, text) = world.run(world.shell("i=0; while [ $i -lt 5000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done"));
    let expected: String = (0..5000).map(|i| format!("o{i}\ne{i}\n")).collect();
    assert!(text == expected, "{} bytes instead of {}", text.len(), expected.len());
}

#[test]
fn output_is_seen_while_the_step_runs() {
    let mut world = World::new();
    let step = world.start(world.shell("echo started; cat /dev/zero | sleep 60"));
    world.until_printed(step, "started");
    assert!(world.ended.is_empty());
    world.stop(step, Stop::Kill);
    world.end_of(step);
}

#[test]
fn a_step_that_closes_its_output_runs_on() {
    let mut world = World::new();
    let (end, text) = world.run(world.shell("echo before; exec >&- 2>&-; sleep 0.2; exit 9"));
    assert_eq!(code(&end), 9);
    assert_eq!(text, "before\n");
    assert!(end.duration.0 >= 200, "{:?}", end.duration);
}

#[test]
fn the_output_of_a_leftover_is_read_only_a_moment_longer() {
    let mut world = World::new();
    let mut job = world.shell("(while :; do echo noise; done) & exit 0");
    job.stop_grace = Duration::from_millis(500);
    let step = world.start(job);
    let mut bytes = 0;
    stream(&mut world, step, |_, piece| bytes += piece.len());
    // The writer meets a closed pipe after 100 ms, and mostly dies of that before the grace is over.
    assert!(bytes > 0);
    assert_eq!(code(&world.ended[&step]), 0);
}
