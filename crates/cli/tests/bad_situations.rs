//! What can be wrong with a machine, in one table: what the command says, with which code, and which next step.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Place, skipped};

const PLAN: &str = "plan_id: p\nsteps: [{id: a, command: echo, args: [hi]}]\n";

/// One bad situation.
struct Situation {
    name: &'static str,
    /// Makes it; answers with what is to be run, or why it cannot be made here.
    make: fn(&Place) -> Result<String, String>,
    code: &'static str,
    exit: i32,
    /// What the message must name: the thing, and the next step.
    names: &'static [&'static str],
}

const TABLE: &[Situation] = &[
    Situation {
        name: "the disk is full",
        make: |place| {
            let disk = small_disk(place)?;
            fill(&disk);
            Ok(format!("run plan.yaml --data-dir {}", disk.join(".baton").display()))
        },
        code: "disk-full",
        exit: 3,
        names: &["disk/.baton", "free some space"],
    },
    Situation {
        name: "the data directory cannot be made",
        make: |place| {
            place.write("file", "");
            Ok("run plan.yaml --data-dir file/.baton".to_owned())
        },
        code: "store-unwritable",
        exit: 3,
        names: &["file/.baton", "--data-dir"],
    },
    Situation {
        name: "the data directory is read-only",
        make: |place| {
            let disk = small_disk(place)?;
            mount(&["-o", "remount,ro", &disk.display().to_string()])?;
            Ok(format!("run plan.yaml --data-dir {}", disk.join(".baton").display()))
        },
        code: "store-unwritable",
        exit: 3,
        names: &["disk/.baton", "--data-dir"],
    },
    Situation {
        name: "there is no data directory",
        make: |_| Ok("status --data-dir nowhere".to_owned()),
        code: "no-store",
        exit: 3,
        names: &["nowhere", "baton run"],
    },
    Situation {
        name: "there is nothing to go on with",
        make: |_| Ok("resume --data-dir nowhere".to_owned()),
        code: "no-store",
        exit: 3,
        names: &["nowhere", "--data-dir"],
    },
    Situation {
        name: "the database is no database",
        make: |place| {
            a_run(place);
            fs::write(place.file(".baton/baton.db"), [b'x'; 8192]).unwrap();
            // What is in the write-ahead log would mend it.
            fs::remove_file(place.file(".baton/baton.db-wal")).unwrap();
            Ok("status".to_owned())
        },
        code: "damaged-database",
        exit: 3,
        names: &["baton.db", "baton restore"],
    },
    Situation {
        name: "the database is somebody else's",
        make: |place| {
            a_run(place);
            sql(place, "PRAGMA application_id = 1");
            Ok("run plan.yaml".to_owned())
        },
        code: "foreign-database",
        exit: 3,
        names: &["baton.db", "--data-dir"],
    },
    Situation {
        name: "the database is of a newer Baton",
        make: |place| {
            a_run(place);
            sql(place, "PRAGMA user_version = 999");
            Ok("run plan.yaml".to_owned())
        },
        code: "newer-schema",
        exit: 3,
        names: &["999", "newer"],
    },
    Situation {
        name: "an event was changed",
        make: |place| {
            a_run(place);
            sql(place, "UPDATE event SET payload = replace(payload, 'hi', 'ho')");
            Ok("status 1".to_owned())
        },
        code: "damaged-log",
        exit: 3,
        names: &["run 1", "baton doctor"],
    },
    Situation {
        name: "the doctor finds it too",
        make: |place| {
            a_run(place);
            sql(place, "UPDATE event SET payload = replace(payload, 'hi', 'ho')");
            Ok("doctor".to_owned())
        },
        code: "unhealthy",
        exit: 3,
        names: &["baton restore"],
    },
    Situation {
        name: "a backup is not whole",
        make: |place| {
            a_run(place);
            assert_eq!(place.baton("backup copy").exit, 0);
            let database = place.file("copy/baton.db");
            let mut bytes = fs::read(&database).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::write(&database, bytes).unwrap();
            Ok("restore copy".to_owned())
        },
        code: "damaged-file",
        exit: 3,
        names: &["copy"],
    },
    Situation {
        name: "a run in a backup is damaged",
        make: |place| {
            a_run(place);
            sql(place, "UPDATE event SET payload = replace(payload, 'hi', 'ho')");
            assert_eq!(place.baton("backup copy").exit, 3);
            Ok("restore copy".to_owned())
        },
        code: "refused",
        exit: 3,
        names: &["run 1", "--without-damaged"],
    },
    Situation {
        name: "a run that is over is to go on",
        make: |place| {
            a_run(place);
            Ok("resume 1".to_owned())
        },
        code: "illegal-operation",
        exit: 3,
        names: &["run 1", "baton retry 1"],
    },
];

fn a_run(place: &Place) {
    let ran = place.baton("run plan.yaml");
    assert_eq!(ran.exit, 0, "{ran:?}");
}

fn sql(place: &Place, statement: &str) {
    let database = rusqlite::Connection::open(place.file(".baton/baton.db")).unwrap();
    // Triggers guard the log against this; whoever means harm drops them first.
    let triggers: Vec<String> = database
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for trigger in triggers {
        database.execute_batch(&format!("DROP TRIGGER \"{trigger}\"")).unwrap();
    }
    database.execute_batch(statement).unwrap();
}

/// A disk of its own, small; only root may mount one. It goes with the mount namespace or with [`Mounted`].
fn small_disk(place: &Place) -> Result<std::path::PathBuf, String> {
    let disk = place.file("disk");
    fs::create_dir_all(&disk).unwrap();
    mount(&["-t", "tmpfs", "-o", "size=40m", "tmpfs", &disk.display().to_string()])?;
    Ok(disk)
}

fn mount(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("mount").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

fn fill(disk: &Path) {
    let mut size = 1 << 20;
    let mut number = 0;
    while size > 0 {
        match fs::write(disk.join(format!("filler{number}")), vec![0u8; size]) {
            Ok(()) => number += 1,
            Err(_) => size /= 2,
        }
    }
}

/// Takes a disk away again, whatever became of the test.
struct Mounted<'a>(&'a Place);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let disk = self.0.file("disk");
        if disk.exists() {
            // Where nothing was mounted there is nothing to take away.
            let _ = Command::new("umount").arg("-l").arg(disk).output();
        }
    }
}

#[test]
fn every_bad_situation_has_its_cause_its_codes_and_its_next_step() {
    let mut left_out = Vec::new();
    for situation in TABLE {
        let place = Place::new();
        let _mounted = Mounted(&place);
        place.write("plan.yaml", PLAN);
        let name = situation.name;
        let arguments = match (situation.make)(&place) {
            Ok(arguments) => arguments,
            Err(reason) => {
                skipped(name, &reason);
                left_out.push(name);
                continue;
            }
        };
        let told = place.baton(&format!("{arguments} --output json"));
        let last = told.stderr.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{name}: {told:?}"));
        assert_eq!(error["error"]["code"], situation.code, "{name}: {told:?}");
        assert_eq!(told.exit, situation.exit, "{name}: {told:?}");
        for words in situation.names {
            assert!(last.contains(words), "{name}: `{words}` is not in {last}");
        }
        // People read the same.
        let text = place.baton(&arguments).stderr;
        assert!(text.contains(&format!("error[{}]", situation.code)), "{name}: {text}");
        assert!(text.contains("help: "), "{name}: {text}");
    }
    assert!(left_out.len() <= 2, "only disks of their own may be impossible here: {left_out:?}");
}

#[test]
fn a_backup_with_a_damaged_run_is_made_and_told_and_laid_back_without_it() {
    let place = Place::new();
    place.write("plan.yaml", PLAN);
    a_run(&place);
    a_run(&place);
    sql(&place, "UPDATE event SET payload = replace(payload, 'hi', 'ho') WHERE key < 2 << 32");
    let made = place.baton("backup copy");
    assert_eq!(made.exit, 3, "{made:?}");
    assert!(made.stdout.contains("copied 2 runs"), "{made:?}");
    for words in ["error[backup-damaged]", "run 1", "help: ", "`baton restore copy --without-damaged`"] {
        assert!(made.stderr.contains(words), "`{words}`: {made:?}");
    }
    assert!(!made.stderr.contains("run 2"), "{made:?}");
    let restored = place.baton("restore copy --without-damaged");
    assert_eq!(restored.exit, 0, "{restored:?}");
    assert!(restored.stdout.contains("laid back 1 run"), "{restored:?}");
    assert!(restored.stdout.contains("left out, because they are damaged or need one that is: 1\n"), "{restored:?}");
    assert_eq!(place.baton("status 2").exit, 0);
    assert_eq!(place.baton("doctor").exit, 0);
}

#[test]
fn a_second_process_cannot_drive_the_same_run() {
    let place = Place::new();
    place.write(
        "plan.yaml",
        "plan_id: p\nsteps: [{id: a, shell: true, command: 'echo up; until [ -e gate ]; do sleep 0.02; done'}]\n",
    );
    let mut run = place.start("run plan.yaml");
    run.wait_for("[a] up");
    for (arguments, next) in
        [("resume 1", "baton logs 1 --follow"), ("retry 1", "baton cancel 1"), ("restore copy", "")]
    {
        if arguments == "restore copy" {
            assert_eq!(place.baton("backup copy").exit, 0, "a run that goes on is copied while it does");
        }
        let refused = place.baton(arguments);
        assert_eq!(refused.exit, 3, "{arguments}: {refused:?}");
        assert!(refused.stderr.contains(next), "{arguments}: {refused:?}");
    }
    place.write("gate", "");
    assert_eq!(run.end().exit, 0);
}

#[test]
fn a_disk_that_fills_while_a_run_goes_on_loses_nothing() {
    let place = Place::new();
    let _mounted = Mounted(&place);
    let disk = match small_disk(&place) {
        Ok(disk) => disk,
        Err(reason) => {
            skipped("the disk that fills", &reason);
            return;
        }
    };
    place.write(
        "plan.yaml",
        r#"
plan_id: p
steps:
  - {id: a, shell: true, command: 'echo a >> ran.txt'}
  - id: b
    depends_on: [a]
    shell: true
    command: |
      echo up
      until [ -e gate ]; do sleep 0.02; done
      head -c 15000000 /dev/zero | tr '\0' x
  - {id: c, command: echo, args: [through], depends_on: [b]}
"#,
    );
    let data_dir = disk.join(".baton").display().to_string();
    let mut run = place.start(&format!("run plan.yaml --data-dir {data_dir}"));
    run.wait_for("[b] up");
    fill(&disk);
    place.write("gate", "");
    run.wait_for("the disk is full");
    for entry in fs::read_dir(&disk).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("filler") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    // Nobody had to do anything but make room.
    let ended = run.end();
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("the disk has room again"), "{}", ended.stdout);
    assert!(ended.stdout.contains("[c] through"), "{}", ended.stdout);
    assert_eq!(fs::read_to_string(place.file("ran.txt")).unwrap(), "a\n", "what had finished is not repeated");
    assert_eq!(place.baton(&format!("doctor --data-dir {data_dir}")).exit, 0);
}

/// A plan whose second step goes on until there is a file `gate`.
const GATED: &str = r#"
plan_id: p
steps:
  - {id: a, shell: true, command: 'echo a >> ran.txt'}
  - id: b
    depends_on: [a]
    shell: true
    command: 'echo up; until [ -e gate ]; do sleep 0.02; done; echo b >> ran.txt; touch b-is-over'
  - {id: c, shell: true, command: 'echo c >> ran.txt', depends_on: [b]}
"#;

/// Another program that is in the middle of a change of the database, for as long as this lives.
fn keep_busy(place: &Place) -> rusqlite::Connection {
    let busy = rusqlite::Connection::open(place.file(".baton/baton.db")).unwrap();
    busy.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    busy
}

#[test]
fn a_database_that_another_program_keeps_busy_is_waited_for_and_nothing_is_lost() {
    let place = Place::new();
    place.write("plan.yaml", GATED);
    let mut run = place.start("run plan.yaml");
    run.wait_for("[b] up");
    let busy = keep_busy(&place);
    place.write("gate", "");
    run.wait_for("another process keeps the database busy");
    assert!(place.file("b-is-over").exists(), "what ran has gone on");
    assert_eq!(fs::read_to_string(place.file("ran.txt")).unwrap(), "a\nb\n", "nothing new has started");
    drop(busy);
    let ended = run.end();
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert_eq!(ended.stdout.matches("keeps the database busy").count(), 1, "{}", ended.stdout);
    assert!(ended.stdout.contains("the database is free again"), "{}", ended.stdout);
    assert_eq!(fs::read_to_string(place.file("ran.txt")).unwrap(), "a\nb\nc\n", "what had ended is not repeated");
    assert_eq!(place.baton("doctor").exit, 0);
}

#[test]
fn signals_are_heard_while_the_database_is_busy() {
    let place = Place::new();
    place.write("plan.yaml", GATED);
    let mut run = place.start("run plan.yaml");
    run.wait_for("[b] up");
    let busy = keep_busy(&place);
    run.signal("INT");
    run.wait_for("SIGINT: canceling");
    run.wait_for("another process keeps the database busy");
    drop(busy);
    place.write("gate", "");
    assert_eq!(run.end().exit, 130, "the request was kept and is done");
    fs::remove_file(place.file("gate")).unwrap();

    let mut run = place.start("run plan.yaml");
    run.wait_for("[b] up");
    let busy = keep_busy(&place);
    place.write("gate", "");
    run.wait_for("another process keeps the database busy");
    run.signal("TERM");
    assert_eq!(run.end().exit, 4, "it goes although it could not write");
    drop(busy);
    let resumed = place.baton("resume 2");
    assert_eq!(resumed.exit, 0, "{resumed:?}");
}

#[test]
fn an_owner_that_was_thought_dead_writes_no_more_after_others_had_its_locks() {
    let place = Place::new();
    place.write("plan.yaml", &format!("{GATED}locks: [release]\n"));
    place.write("other.yaml", &format!("{PLAN}locks: [release]\n"));
    let mut run = place.start("run plan.yaml");
    run.wait_for("[b] up");
    run.signal("STOP");
    // Somebody breaks the rules: the lock file goes while its owner lives.
    for entry in fs::read_dir(place.file(".baton/owners")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(path).unwrap();
        }
    }
    let other = place.baton("run other.yaml");
    assert_eq!(other.exit, 0, "{other:?}");
    let known = place.baton("events 1").stdout;
    assert!(known.contains("step_started"), "{known}");
    run.signal("CONT");
    let ended = run.end();
    assert_eq!(ended.exit, 3, "{ended:?}");
    assert!(ended.stderr.contains("error[run-taken-over]"), "{ended:?}");
    assert_eq!(place.baton("events 1").stdout, known, "nothing was written");
    assert_eq!(place.json("locks")["held"], serde_json::json!([]));
    place.write("gate", "");
    let resumed = place.baton("resume 1");
    assert_eq!(resumed.exit, 0, "{resumed:?}");
}
