//! Children that try to get away, in many shapes: when their step ends or is ended, none is left.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use baton_actions::{HostEvent, Stop};
use support::{World, lives, processes_with};

/// Each script leaves something running under the name `$1` (a number of seconds for `sleep` that nobody else uses),
/// says `ready` when it does, and then ends if `$2` is `end`, else waits.
const SHAPES: &[(&str, &str)] = &[
    ("plain child", "sleep $1 & echo ready"),
    ("nohup", "nohup sleep $1 >/dev/null 2>&1 & echo ready"),
    ("setsid", "setsid sleep $1 & echo ready"),
    ("double fork", "sh -c 'sleep '$1' & exit 0'; echo ready"),
    ("double fork and setsid", "setsid sh -c 'sleep '$1' & exit 0'; echo ready"),
    ("daemon with closed streams", "setsid sh -c 'sleep '$1' <&- >&- 2>&- & exit 0'; echo ready"),
    ("ignores TERM", "sh -c 'trap \"\" TERM HUP INT; sleep '$1' & wait' & echo ready"),
    ("stopped", "sleep $1 & kill -STOP $!; echo ready"),
    ("blocked on a full pipe", "sh -c 'cat /dev/zero | sleep '$1 & echo ready"),
    (
        "fifty at once",
        "for i in 1 2 3 4 5 6 7 8 9 10; do (for j in 1 2 3 4 5; do sleep $1 & done; wait) & done; echo ready",
    ),
    ("daemon that ignores TERM", "setsid sh -c 'trap \"\" TERM; sh -c \"sleep '$1' & wait\" & exit 0'; echo ready"),
    (
        "daemon with an empty environment",
        "env -i /usr/bin/setsid /bin/sh -c '/bin/sleep '$1' >/dev/null 2>&1 & exit 0'; echo ready",
    ),
    ("keeps the output open", "sh -c 'exec sleep '$1 & echo ready"),
    ("stopped daemon in a session of its own", "setsid sh -c 'sleep '$1' & kill -STOP $!; exit 0'; echo ready"),
    ("a chain of sessions", "setsid sh -c 'setsid sh -c \"setsid sleep '$1' & exit 0\" & exit 0'; echo ready"),
];

const NONE: [u32; 0] = [];

/// A number of seconds that is as good as a name.
fn mark(shape: usize, case: usize) -> String {
    format!("{}{:02}{case}.5", 1000 + std::process::id(), shape)
}

fn script(shape: &str, then: &str) -> String {
    format!("{shape}\n{then}")
}

#[test]
fn what_a_step_leaves_running_is_reported_and_ended() {
    let mut world = World::new();
    for (number, (name, shape)) in SHAPES.iter().enumerate() {
        let mark = mark(number, 1);
        let mut job = world.job(&["sh", "-c", &script(shape, "exit 3"), "step", &mark]);
        job.stop_grace = Duration::from_millis(50);
        let (end, text) = world.run(job);
        assert_eq!(support::code(&end), 3, "{name}");
        assert!(text.contains("ready"), "{name}: {text}");
        assert_eq!(processes_with(&mark), NONE, "{name}");
        assert!(!end.leftovers.is_empty(), "{name} left something");
        assert!(end.leftovers.len() <= 16, "{name}");
        for left in &end.leftovers {
            let (pid, comm) = left.split_once(' ').expect("a number and a name");
            assert!(pid.parse::<u32>().is_ok() && !comm.is_empty(), "{left}");
        }
    }
}

#[test]
fn a_canceled_step_leaves_nothing_whatever_its_shape() {
    let mut world = World::new();
    for (number, (name, shape)) in SHAPES.iter().enumerate() {
        let mark = mark(number, 2);
        let step = world.start(world.job(&["sh", "-c", &script(shape, "while :; do sleep 0.2; done"), "step", &mark]));
        world.until_printed(step, "ready");
        world.until(name, |_| !processes_with(&mark).is_empty());
        world.stop(step, Stop::Terminate);
        let grace = Instant::now() + Duration::from_millis(100);
        world.until("the grace is over", |_| Instant::now() >= grace);
        world.stop(step, Stop::Kill);
        world.end_of(step);
        assert_eq!(processes_with(&mark), NONE, "{name}");
    }
}

#[test]
fn a_step_killed_without_warning_leaves_nothing_whatever_its_shape() {
    let mut world = World::new();
    for (number, (name, shape)) in SHAPES.iter().enumerate() {
        let mark = mark(number, 3);
        let step = world.start(world.job(&["sh", "-c", &script(shape, "while :; do sleep 0.2; done"), "step", &mark]));
        world.until_printed(step, "ready");
        world.until(name, |_| !processes_with(&mark).is_empty());
        world.stop(step, Stop::Kill);
        let end = world.end_of(step);
        assert!(matches!(end.cause, baton_core::ExitCause::Signal { signal: 9, .. }), "{name}: {:?}", end.cause);
        assert_eq!(processes_with(&mark), NONE, "{name}");
    }
}

/// A daemon that shows nothing of its origin but the mark; with a prefix, not even that.
fn hiding(prefix: &str) -> String {
    format!("env -i /usr/bin/setsid {prefix} /bin/sh -c '/bin/sleep '$1' & exit 0' <&- >/dev/null 2>&1; echo ready")
}

#[test]
fn who_hides_is_known_by_its_mark_and_neighbours_are_left_alone() {
    let mut world = World::new();
    let (hidden, open) = (mark(90, 4), mark(91, 4));
    let quiet = world.start(world.job(&["sh", "-c", "sleep $1 & echo ready; wait", "step", &open]));
    world.until_printed(quiet, "ready");
    let hider = world.start(world.job(&["sh", "-c", &hiding(""), "step", &hidden]));
    let end = world.end_of(hider);
    assert_eq!(end.leftovers.len(), 1, "{:?}", end.leftovers);
    assert_eq!(processes_with(&hidden), NONE);
    assert_eq!(processes_with(&open).len(), 2, "the shell and its child");
    world.stop(quiet, Stop::Kill);
    world.end_of(quiet);
    assert_eq!(processes_with(&open), NONE);
}

#[test]
fn who_takes_off_even_its_mark_goes_with_the_last_of_those_it_may_belong_to() {
    let mut world = World::new();
    let (hidden, open) = (mark(94, 4), mark(95, 4));
    let quiet = world.start(world.job(&["sh", "-c", "sleep $1 & echo ready; wait", "step", &open]));
    world.until_printed(quiet, "ready");
    let script = hiding("/usr/bin/prlimit --rttime=1000000:1000000");
    let hider = world.start(world.job(&["sh", "-c", &script, "step", &hidden]));
    let end = world.end_of(hider);
    assert!(end.leftovers.is_empty(), "nothing tells that it was this one's: {:?}", end.leftovers);
    assert_eq!(processes_with(&hidden).len(), 1);
    world.stop(quiet, Stop::Kill);
    world.end_of(quiet);
    assert_eq!(processes_with(&hidden), NONE);
    assert_eq!(processes_with(&open), NONE);
}

#[test]
fn a_detached_process_stays() {
    let mut world = World::new();
    let mark = mark(92, 5);
    let mut job = world.job(&["sh", "-c", "setsid sleep $1 & echo $!", "step", &mark]);
    job.detach = true;
    let before = Instant::now();
    let (end, _) = world.run(job);
    assert!(end.leftovers.is_empty());
    assert!(before.elapsed() < Duration::from_secs(5), "nothing is waited for but its output");
    let left = processes_with(&mark);
    assert_eq!(left.len(), 1);
    std::process::Command::new("kill").arg(left[0].to_string()).status().unwrap();
    // It is our child since its shell ended, so it is ours to reap, and it is reaped although its step is long gone.
    world.until("it is reaped", |_| !std::fs::exists(format!("/proc/{}", left[0])).unwrap());
}

#[test]
fn what_ends_by_itself_in_time_is_no_leftover() {
    let mut world = World::new();
    let mut job = world.shell("(sleep 0.4; echo late) & echo early");
    job.stop_grace = Duration::from_secs(20);
    let (end, text) = world.run(job);
    assert!(end.leftovers.is_empty(), "{:?}", end.leftovers);
    assert_eq!(text, "early\n", "its output is read for 100 ms, no longer");
}

#[test]
fn dead_orphans_are_reaped_while_their_step_runs() {
    let mut world = World::new();
    let script = "for i in 1 2 3 4 5 6 7 8; do sh -c 'sleep 0.01 & exit 0'; done
        sleep 0.1; echo ready; cat /dev/zero | sleep 60";
    let step = world.start(world.shell(script));
    world.until_printed(step, "ready");
    let own = std::process::id();
    let children = || -> BTreeSet<u32> {
        let text = std::fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    world.until("the dead are gone", |_| children().iter().all(|pid| lives(*pid)));
    world.stop(step, Stop::Kill);
    world.end_of(step);
    assert!(!world.others.iter().any(|event| matches!(event, HostEvent::Stuck { .. })));
}

#[test]
fn survivors_of_a_dead_driver_are_found_by_name_and_ended() {
    let mut world = World::new();
    let mark = mark(93, 6);
    let mut job = world.job(&[
        "sh",
        "-c",
        "trap '' TERM; setsid sleep $1 & env -i /bin/sleep $1 & echo ready; wait; wait",
        "step",
        &mark,
    ]);
    job.attempt_name = format!("{}/12/build/1", world.store);
    let other = world.job(&["sleep", &format!("{mark}1")]);
    let prefix = format!("{}/12/", world.store);
    let step = world.start(job);
    world.start(other);
    world.until_printed(step, "ready");
    world.until("both run", |_| processes_with(&mark).len() >= 4);
    let found = baton_actions::survivors(&prefix).unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    let named = |name: &str| found.iter().filter(|survivor| survivor.attempt == format!("{prefix}{name}")).count();
    assert_eq!((named("build/1"), named("?")), (2, 1), "{found:?}");
    let ended = baton_actions::end_survivors(&prefix, Duration::from_millis(100), &|_| false).unwrap();
    assert_eq!(ended.len(), 3, "{ended:?}");
    assert!(baton_actions::survivors(&prefix).unwrap().is_empty());
    assert_eq!(processes_with(&format!("{mark}1")).len(), 1, "another run's processes are not touched");
    world.stop(2, Stop::Kill);
    world.end_of(2);
}

#[test]
fn a_step_that_forks_as_fast_as_it_can_is_caught_up_with() {
    let mut world = World::new();
    let mark = mark(96, 7);
    // Bounded, so that a failure of this test does not take the machine along.
    let script = "loop() { i=0; while [ $i -lt 300 ]; do sleep $1 & i=$((i+1)); done; wait; }
        echo ready; loop $1 &
        setsid sh -c 'i=0; while [ $i -lt 300 ]; do setsid sleep '$1' & i=$((i+1)); done; wait' & wait";
    for how in [Stop::Kill, Stop::Terminate] {
        let step = world.start(world.job(&["sh", "-c", script, "step", &mark]));
        world.until_printed(step, "ready");
        world.until("some have been born", |_| processes_with(&mark).len() > 20);
        world.stop(step, how);
        world.end_of(step);
        assert_eq!(processes_with(&mark), NONE, "{how:?}");
    }
}

#[test]
fn a_child_of_other_code_in_this_program_is_left_to_it() {
    let mut world = World::new();
    // As in a baton that runs inside a step of another: the outer attempt's name is in the environment. It is an
    // orphan only so that it hangs on the main thread, like the children of a program without threads.
    let mut other = std::process::Command::new("sh");
    let other = other
        .args(["-c", "(sleep 0.2; exit 7) >/dev/null 2>&1 & echo $!"])
        .env("BATON_ATTEMPT", "outer/1/step/1")
        .output()
        .unwrap();
    let pid: u32 = String::from_utf8(other.stdout).unwrap().trim().parse().unwrap();
    world.until("it has ended", |_| !lives(pid));
    for _ in 0..3 {
        world.run(world.shell("sleep 0.01 & exit 0"));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
    let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.1.exit_status(), Some(7), "its end is there for whoever waits for it");
}
