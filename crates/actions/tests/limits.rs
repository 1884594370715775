//! When the machine has no room: nothing is lost, nothing panics, and work goes on when there is room again.

mod support;

use std::fs::File;
use std::time::Duration;

use baton_actions::{CaughtSignal, Host, HostEvent, HostOptions, StartError};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit, test_kill_process};
use support::World;

#[test]
fn without_descriptors_a_start_is_put_off_and_succeeds_later() {
    let mut world = World::new();
    let running = world.start(world.shell("read line; echo never; exit 1"));
    world.end_of(running);
    let before = getrlimit(Resource::Nofile);
    let waiting = world.start(world.shell("sleep 0.3; echo done"));
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    // From no descriptor to a few: whichever step of a start meets the end of them, it is put off, whole.
    let mut started = 0;
    for _ in 0..8 {
        match world.try_start(world.shell("echo late")) {
            Ok(_) => started += 1,
            Err(error) => assert!(matches!(error, StartError::Busy { .. }), "{}", error.describe()),
        }
        drop(hoard.pop());
    }
    assert!(started < 8, "at least the first start found no descriptor");
    // What ran before is seen to its end all the same.
    world.end_of(waiting);
    assert_eq!(world.text(waiting), "done\n");
    drop(hoard);
    let (_, text) = world.run(world.shell("echo again"));
    assert_eq!(text, "again\n");
    world.until("all have ended", |world| world.host.running() == 0);
    assert!(world.others.iter().all(|event| !matches!(event, HostEvent::Stuck { .. })));
    setrlimit(Resource::Nofile, before).unwrap();
}

#[test]
fn without_descriptors_a_leftover_is_not_taken_for_gone() {
    let mut world = World::new();
    let mark = format!("{}.77", 3_000_000 + std::process::id());
    // Its output is closed early, so that the host has no descriptor of it to give up at the end.
    let script = "setsid sleep $1 >/dev/null 2>&1 & echo ready; exec >&- 2>&-; sleep 0.2";
    let mut job = world.job(&["sh", "-c", script, "step", &mark]);
    job.stop_grace = Duration::from_millis(50);
    let step = world.start(job);
    world.until_printed(step, "ready");
    let main = Pid::from_raw(i32::try_from(world.host.pid(support::key(step)).unwrap()).unwrap()).unwrap();
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    let mut rounds_after_end = 0;
    while rounds_after_end < 5 {
        world.round();
        rounds_after_end += u32::from(test_kill_process(main).is_err());
        // What the host has closed meanwhile must not help it.
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
    }
    assert!(world.ended.is_empty(), "nobody could look whether something is left");
    drop(hoard);
    let end = world.end_of(step);
    assert_eq!(end.leftovers.len(), 1, "{:?}", end.leftovers);
    let none: [u32; 0] = [];
    assert_eq!(support::processes_with(&mark), none);
    setrlimit(Resource::Nofile, before).unwrap();
}

#[test]
fn many_small_steps_leave_no_descriptor_and_no_zombie_behind() {
    let mut world = World::new();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    world.run(world.shell("true"));
    let before = count();
    for _ in 0..30 {
        for _ in 0..8 {
            world.start(world.job(&["/bin/echo", "hi"]));
        }
        world.until("all have ended", |world| world.host.running() == 0);
    }
    assert_eq!(count(), before);
    let own = std::process::id();
    let children: String = std::fs::read_dir(format!("/proc/{own}/task"))
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap())
        .collect();
    assert_eq!(children.trim(), "");
    assert!(world.printed.iter().filter(|(_, text)| text.as_slice() == b"hi\n").count() >= 240);
}

#[test]
fn the_poller_and_what_is_watched_wake_the_host() {
    let mut world = World::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let token = world.host.watch(&reader).unwrap();
    let poller = world.host.poller();
    let other = std::thread::spawn(move || poller.notify());
    let mut events = Vec::new();
    // Without a timeout: only the notification ends this wait.
    world.host.wait(None, &mut events).unwrap();
    other.join().unwrap().unwrap();
    assert_eq!(events, []);
    rustix::io::write(&writer, b"x").unwrap();
    world.host.wait(None, &mut events).unwrap();
    assert_eq!(events, [HostEvent::Readable { token }]);
}

#[test]
fn signals_to_this_process_are_counted_and_reach_no_child() {
    let world = World::new();
    let scratch = world.path().join("other-scratch");
    let mut host =
        Host::new(HostOptions { scratch, catch_signals: true, cgroup: None, owner: support::OWNER }).unwrap();
    let own = rustix::process::getpid();
    host.start(support::key(1), world.job(&["cat", "/proc/self/status"])).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        rustix::process::kill_process(own, signal).unwrap();
    }
    let (mut caught, mut status, mut ended) = (Vec::new(), Vec::new(), false);
    while caught.len() < 3 || !ended {
        let mut events = Vec::new();
        host.wait(Some(support::PATIENCE), &mut events).unwrap();
        for event in events {
            match event {
                HostEvent::Signal(signal) => caught.push(signal),
                HostEvent::Output { bytes, .. } => status.extend(bytes),
                HostEvent::Ended { .. } => ended = true,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(caught.iter().filter(|signal| **signal == CaughtSignal::Interrupt).count(), 2);
    assert_eq!(caught.iter().filter(|signal| **signal == CaughtSignal::Terminate).count(), 1);
    let status = String::from_utf8(status).unwrap();
    assert!(status.contains("SigCgt:\t0000000000000000"), "{status}");
}
