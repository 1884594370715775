//! Containment by cgroup: who gets away from every other look is found by whoever comes after a dead driver.
//!
//! The driver is this process and does not die; but it does not look either, unless a test says so. Where the machine
//! allows no cgroup, the tests that need one say so and are skipped.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_actions::{Containment, Stop, Survivor};
use support::{OWNER, World, processes_with};

const NONE: [u32; 0] = [];

/// Leaves a daemon of the name `$1` that shows nothing of where it came from: no environment, a mark that is none, a
/// session of its own, no stream, and, because it is born of a process that is gone, no parent.
const ESCAPE: &str = "env -i /usr/bin/setsid /usr/bin/prlimit --rttime=1000000:1000000 \
    /bin/sh -c '/bin/sleep '$1' & exit 0' <&- >/dev/null 2>&1; echo ready";

/// A cgroup in which others can be made; without one a test is skipped. It is asked here, so that a host that does
/// not manage it where it could is a failure.
fn place() -> Option<PathBuf> {
    let probe = |place: &PathBuf| {
        let path = place.join(format!("test-probe-{}-{:?}", std::process::id(), std::thread::current().id()));
        let made = std::fs::create_dir(&path);
        let can_kill = path.join("cgroup.kill").exists();
        made.and_then(|()| std::fs::remove_dir(&path)).is_ok() && can_kill
    };
    let place = baton_actions::own_cgroup().filter(probe).filter(|_| cfg!(target_arch = "x86_64"));
    if place.is_none() {
        eprintln!("skipped: this machine allows no cgroup");
    }
    place
}

/// A number of seconds that is as good as a name.
fn mark(case: u32) -> String {
    format!("{}{case:02}.7", 2000 + std::process::id())
}

fn prefix(world: &World) -> String {
    format!("{}/1/", world.store)
}

/// The cgroup of a world's run.
fn folder(world: &World, place: &Path) -> PathBuf {
    place.join(format!("baton-{}-1-{}", world.store, OWNER.0))
}

/// Starts a step that leaves a daemon which shows nothing, and goes on itself.
fn with_an_escape(world: &mut World, mark: &str) {
    let script = format!("{ESCAPE}; exec sleep {mark}1");
    let step = world.start(world.job(&["sh", "-c", &script, "step", mark]));
    world.until_printed(step, "ready");
    world.until("the daemon and the step are there", |_| processes_with(mark).len() == 2);
}

fn end_all(world: &World) -> Vec<Survivor> {
    baton_actions::end_survivors(&prefix(world), Duration::from_millis(100), &|_| false).unwrap()
}

#[test]
fn who_shows_nothing_is_found_in_the_cgroup_of_its_run_and_ended() {
    let Some(place) = place() else { return };
    let mark = mark(1);
    let mut world = World::in_cgroup(Some(place.clone()));
    with_an_escape(&mut world, &mark);
    assert_eq!(world.host.containment(), Containment::Cgroup);
    let found = baton_actions::survivors(&prefix(&world)).unwrap();
    let mut names: Vec<String> = found.iter().map(|one| one.attempt.clone()).collect();
    names.sort();
    assert_eq!(names, [format!("{}?", prefix(&world)), format!("{}step/1", prefix(&world))]);
    assert!(found.iter().all(|one| one.owner == Some(OWNER)), "{found:?}");
    assert_eq!(found.iter().filter(|one| one.is_nameless()).count(), 1);
    assert_eq!(end_all(&world).len(), 2);
    assert_eq!(processes_with(&mark), NONE);
    assert!(!folder(&world, &place).exists(), "whoever has emptied it removes it");
}

#[test]
fn without_a_cgroup_attempts_run_as_ever_and_such_a_one_gets_away() {
    let no_cgroup = tempfile::tempdir().unwrap();
    let missing = no_cgroup.path().join("not/there");
    for (case, place) in [(2, None), (3, Some(missing)), (4, Some(no_cgroup.path().to_owned()))] {
        let mark = mark(case);
        let mut world = World::in_cgroup(place.clone());
        with_an_escape(&mut world, &mark);
        assert_eq!(world.host.containment(), Containment::Subreaper, "{place:?}");
        let ended = end_all(&world);
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert_eq!(ended[0].owner, None);
        let left = processes_with(&mark);
        assert_eq!(left.len(), 1, "this is what a cgroup is for");
        std::process::Command::new("kill").arg(left[0].to_string()).status().unwrap();
        world.end_of(1);
    }
    assert_eq!(std::fs::read_dir(no_cgroup.path()).unwrap().count(), 0, "nothing is left of the try");
}

#[test]
fn no_cgroup_is_left_after_a_run() {
    let Some(place) = place() else { return };
    let mut world = World::in_cgroup(Some(place.clone()));
    let folder = folder(&world, &place);
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    for _ in 0..2 {
        assert!(!folder.exists());
        for _ in 0..2 {
            let (end, text) = world.run(world.shell("cat /proc/self/cgroup; exit 3"));
            assert_eq!(support::code(&end), 3);
            assert!(text.lines().any(|line| line.starts_with("0::") && line.ends_with(&name)), "{text}");
            assert!(folder.exists(), "it is there until the run is over");
        }
        world.host.release(&prefix(&world));
    }
    assert!(!folder.exists());
    world.run(world.shell("true"));
    assert!(folder.exists());
    drop(world);
    assert!(!folder.exists(), "who goes takes it along");
}

#[test]
fn one_that_was_removed_between_two_attempts_is_made_again() {
    let Some(place) = place() else { return };
    let mut world = World::in_cgroup(Some(place.clone()));
    let folder = folder(&world, &place);
    world.run(world.shell("true"));
    std::fs::remove_dir(&folder).unwrap();
    let (_, text) = world.run(world.shell("cat /proc/self/cgroup"));
    assert!(text.contains(folder.file_name().unwrap().to_str().unwrap()), "{text}");
    assert_eq!(world.host.containment(), Containment::Cgroup);
}

#[test]
fn a_detached_process_that_shows_nothing_is_told_from_others_and_spared() {
    let Some(place) = place() else { return };
    let (stays, goes) = (mark(5), mark(6));
    let mut world = World::in_cgroup(Some(place.clone()));
    let folder = folder(&world, &place);
    let mut detached = world.job(&["sh", "-c", ESCAPE, "step", &stays]);
    detached.detach = true;
    let (end, _) = world.run(detached);
    assert!(end.leftovers.is_empty(), "{:?}", end.leftovers);
    let attempt = format!("{}step/1", prefix(&world));
    with_an_escape(&mut world, &goes);
    let found = baton_actions::survivors(&prefix(&world)).unwrap();
    assert_eq!(found.iter().filter(|one| one.attempt == attempt).count(), 1, "{found:?}");
    let spares = |one: &Survivor| one.attempt == attempt;
    let ended = baton_actions::end_survivors(&prefix(&world), Duration::ZERO, &spares).unwrap();
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert_eq!(processes_with(&goes), NONE);
    let left = processes_with(&stays);
    assert_eq!(left.len(), 1, "it was to stay");
    world.end_of(2);
    world.host.release(&prefix(&world));
    assert!(folder.exists(), "its cgroup stays with it");
    std::process::Command::new("kill").arg(left[0].to_string()).status().unwrap();
    world.until("it is reaped", |_| !Path::new(&format!("/proc/{}", left[0])).exists());
    drop(world);
    assert!(!folder.exists());
}

#[test]
fn what_a_dead_owner_left_empty_is_removed_by_the_next_and_what_a_living_one_has_is_not() {
    let Some(place) = place() else { return };
    let place = place.join(format!("test-place-{}", std::process::id()));
    let [dead, living, other] = ["baton-dead-1-1", "baton-living-1-1", "other"].map(|name| place.join(name));
    for folder in [&dead.join("step-long%2F1"), &living, &other] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let lock = std::fs::File::open(&living).unwrap();
    lock.lock().unwrap();
    let mut world = World::in_cgroup(Some(place.clone()));
    world.run(world.shell("true"));
    let run = folder(&world, &place);
    assert_eq!([&dead, &living, &other, &run].map(|folder| folder.exists()), [false, true, true, true]);
    assert!(std::fs::File::open(run).unwrap().try_lock().is_err(), "its owner lives");
    drop(world);
    for folder in [&living, &other, &place] {
        std::fs::remove_dir(folder).unwrap();
    }
}

#[test]
fn who_is_always_a_new_process_is_ended() {
    let Some(place) = place() else { return };
    let mut world = World::in_cgroup(Some(place.clone()));
    // Each is gone as soon as it has started the next. They end with their folder, so that a failure of this test does
    // not take the machine along.
    let script = "env -i /usr/bin/setsid /usr/bin/prlimit --rttime=1000000:1000000 /bin/sh -c '\
        run() { echo >> \"$0/generations\" || exit; run & }; run & run & \
        ' \"$1\" </dev/null >/dev/null 2>&1; exec sleep 1000";
    let job = world.job(&["sh", "-c", script, "step", world.path().to_str().unwrap()]);
    world.start(job);
    let generations = world.path().join("generations");
    let count = || std::fs::metadata(&generations).map_or(0, |file| file.len());
    world.until("it runs", |_| count() > 20);
    let ended = end_all(&world);
    assert!(!ended.is_empty());
    let members = std::fs::read_to_string(folder(&world, &place).join("cgroup.procs")).unwrap_or_default();
    assert_eq!(members, "");
    let before = count();
    world.end_of(1);
    assert_eq!(count(), before, "nobody writes any more");
}

#[test]
fn what_another_run_or_a_run_within_a_step_does_is_its_own() {
    let Some(place) = place() else { return };
    let (mine, other) = (mark(7), mark(8));
    let mut world = World::in_cgroup(Some(place.clone()));
    let mut job = world.job(&["sh", "-c", &format!("{ESCAPE}; exec sleep $1"), "step", &other]);
    job.attempt_name = format!("{}/11/step/1", world.store);
    let step = world.start(job);
    world.until_printed(step, "ready");
    with_an_escape(&mut world, &mine);
    assert_eq!(end_all(&world).len(), 2);
    assert_eq!(processes_with(&mine), NONE);
    assert_eq!(processes_with(&other).len(), 2, "run 11 is not run 1");
    world.stop(step, Stop::Kill);
    world.end_of(step);
    world.end_of(2);
    assert_eq!(processes_with(&other), NONE);
}
