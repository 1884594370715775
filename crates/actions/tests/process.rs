//! One process at a time: what it is given, what it prints, and exactly how it ended.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use baton_actions::StartError;
use baton_core::ExitCause;
use baton_core::graph::ExitCodes;
use serde_json::json;
use support::{World, code};

#[test]
fn output_and_exit_code_come_back() {
    let mut world = World::new();
    let (end, text) = world.run(world.shell("echo out; echo err >&2; echo out again; exit 7"));
    assert_eq!(code(&end), 7);
    assert_eq!(text, "out\nerr\nout again\n");
    assert!(end.leftovers.is_empty());
}

#[test]
fn a_step_inherits_the_environment_and_finds_its_own_name_in_it() {
    let mut world = World::new();
    let mut job =
        world.shell("echo $HOME; echo $EXTRA; echo $BATON_ATTEMPT $BATON_RUN_ID $BATON_STEP_ID $BATON_ATTEMPT_NUMBER");
    job.environment.insert("EXTRA".into(), "a b".into());
    job.environment.insert("BATON_RUN_ID".into(), "forged".into());
    let expected = format!("{}\na b\n{} 1 step 1\n", std::env::var("HOME").unwrap(), job.attempt_name);
    let (_, text) = world.run(job);
    assert_eq!(text, expected);
}

#[test]
fn standard_input_is_empty_or_what_was_given() {
    let mut world = World::new();
    let (_, text) = world.run(world.job(&["wc", "-c"]));
    assert_eq!(text.trim(), "0");
    let mut job = world.job(&["cat"]);
    job.input = Some(b"exactly\0this".to_vec());
    let (_, text) = world.run(job);
    assert_eq!(text, "exactly\0this");
}

#[test]
fn a_child_has_the_three_standard_streams_and_nothing_else() {
    let mut world = World::new();
    let (_, text) = world.run(world.job(&["ls", "/proc/self/fd"]));
    // The fourth is the folder that `ls` reads.
    assert_eq!(text, "0\n1\n2\n3\n");
}

#[test]
fn a_child_leads_its_own_group_and_blocks_and_ignores_no_signal() {
    let mut world = World::new();
    let (_, text) = world.run(world.shell("exec cat /proc/self/status /proc/self/stat"));
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    // The C library keeps signals 32 and 33 for itself, and ignores them in every program it spawns.
    let own_to_libc = 0b11 << 31;
    assert_eq!((field("SigBlk:"), field("SigIgn:") & !own_to_libc), (0, 0));
    let stat = text.lines().last().unwrap();
    let fields: Vec<&str> = stat.split_whitespace().collect();
    assert_eq!(fields[0], fields[4], "pid and process group");
}

#[test]
fn a_signal_is_told_by_name() {
    let mut world = World::new();
    let (end, _) = world.run(world.shell("kill -SEGV $$"));
    match end.cause {
        ExitCause::Signal { signal: 11, name, .. } => assert_eq!(name, "SIGSEGV"),
        other => panic!("{other:?}"),
    }
    let (end, _) = world.run(world.shell("kill -KILL $$"));
    // Nobody here was out of memory, so it is a plain signal.
    assert!(matches!(end.cause, ExitCause::Signal { signal: 9, .. }), "{:?}", end.cause);
}

#[test]
fn a_command_that_is_not_there_is_explained() {
    let mut world = World::new();
    let error = world.try_start(world.job(&["mkdirr"])).unwrap_err();
    assert!(matches!(&error, StartError::NotFound { suggestion: Some(name), .. } if name == "mkdir"), "{error}");
    assert!(error.describe().contains("did you mean `mkdir`?"), "{error}");

    let mut job = world.job(&["tool"]);
    job.environment.insert("PATH".into(), "/nowhere".into());
    let error = world.try_start(job).unwrap_err();
    assert!(error.to_string().contains("PATH=/nowhere"), "{error}");

    let error = world.try_start(world.job(&["./tool"])).unwrap_err();
    assert!(matches!(error, StartError::NoFile { .. }), "{error:?}");
}

#[test]
fn a_file_that_cannot_be_run_is_explained() {
    let mut world = World::new();
    let write = |world: &World, name: &str, text: &str, mode: u32| {
        let path = world.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(&world, "plain.txt", "hello", 0o644);
    write(&world, "script", "echo hello\n", 0o755);
    write(&world, "orphan", "#!/no/such/interpreter\n", 0o755);
    write(&world, "dos", "#!/bin/sh\r\necho hello\r\n", 0o755);
    let error = world.try_start(world.job(&["./plain.txt"])).unwrap_err();
    assert!(matches!(error, StartError::NotExecutable { .. }), "{error:?}");
    let error = world.try_start(world.job(&["./script"])).unwrap_err();
    assert!(matches!(error, StartError::NoProgram { .. }), "{error:?}");
    let error = world.try_start(world.job(&["./orphan"])).unwrap_err();
    assert!(error.to_string().contains("`/no/such/interpreter`"), "{error}");
    let error = world.try_start(world.job(&["./dos"])).unwrap_err();
    assert!(error.to_string().contains(r"`/bin/sh\r`"), "{error}");
    let error = world.try_start(world.job(&["/"])).unwrap_err();
    assert!(matches!(error, StartError::NotExecutable { is_folder: true, .. }), "{error:?}");
    let error = world.try_start(world.job(&["echo", "a\0b"])).unwrap_err();
    assert!(error.to_string().contains("argument 1 of `echo` holds a NUL byte"), "{error}");
    let huge = "x".repeat(200_000);
    let error = world.try_start(world.job(&["echo", &huge])).unwrap_err();
    assert!(matches!(error, StartError::TooLarge { .. }), "{error:?}");
}

#[test]
fn a_missing_folder_is_told_apart_from_a_missing_program() {
    let mut world = World::new();
    let mut job = world.job(&["true"]);
    job.folder = world.path().join("missing");
    let error = world.try_start(job).unwrap_err();
    assert!(error.to_string().contains("missing` does not exist; create it"), "{error}");
    let mut job = world.job(&["true"]);
    fs::write(world.path().join("file"), "").unwrap();
    job.folder = world.path().join("file");
    let error = world.try_start(job).unwrap_err();
    assert!(error.to_string().contains("is not a folder"), "{error}");
}

#[test]
fn a_program_that_moved_along_the_path_is_found_again() {
    let mut world = World::new();
    let (first, second) = (world.path().join("a"), world.path().join("b"));
    for folder in [&first, &second] {
        fs::create_dir(folder).unwrap();
    }
    let write = |folder: &std::path::Path, text: &str| {
        fs::write(folder.join("tool"), format!("#!/bin/sh\necho {text}\n")).unwrap();
        fs::set_permissions(folder.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(&first, "first");
    let path = format!("{}:{}:/bin", first.display(), second.display());
    let tool = |world: &mut World| {
        let mut job = world.job(&["tool"]);
        job.environment.insert("PATH".into(), path.clone());
        world.run(job).1
    };
    assert_eq!(tool(&mut world), "first\n");
    fs::remove_file(first.join("tool")).unwrap();
    write(&second, "second");
    assert_eq!(tool(&mut world), "second\n");
}

#[test]
fn outputs_are_taken_typed_and_their_file_is_gone() {
    let mut world = World::new();
    let script = r#"echo "VERSION=1.2" >> $BATON_OUTPUT; echo '{"count": 3}' >> $BATON_OUTPUT; echo $BATON_OUTPUT"#;
    let (end, path) = world.run(world.shell(script));
    assert_eq!(serde_json::Value::Object(end.outputs), json!({"VERSION": "1.2", "count": 3}));
    assert!(!fs::exists(path.trim()).unwrap());
}

#[test]
fn bad_outputs_fail_a_step_that_had_succeeded_and_name_the_line() {
    let mut world = World::new();
    let (end, _) = world.run(world.shell("printf 'A=1\\nnonsense\\n' > $BATON_OUTPUT"));
    match end.cause {
        ExitCause::BadResult { error } => assert!(error.contains("line 2"), "{error}"),
        other => panic!("{other:?}"),
    }
    let (end, _) = world.run(world.shell("echo nonsense > $BATON_OUTPUT; exit 3"));
    assert_eq!(code(&end), 3, "the failure that came first is the one to know");
    let mut job = world.shell("echo nonsense > $BATON_OUTPUT; exit 3");
    job.accept = ExitCodes::from_iter([3]);
    let (end, _) = world.run(job);
    assert!(matches!(end.cause, ExitCause::BadResult { .. }), "{:?}", end.cause);
    let (end, _) = world.run(world.shell("ln -s /etc/passwd $BATON_OUTPUT"));
    assert!(matches!(end.cause, ExitCause::BadResult { .. }), "{:?}", end.cause);
    let (end, _) = world.run(world.shell("mkfifo $BATON_OUTPUT"));
    assert!(matches!(end.cause, ExitCause::BadResult { .. }), "{:?}", end.cause);
    let (end, _) = world.run(world.shell("head -c 2000000 /dev/zero > $BATON_OUTPUT"));
    assert!(matches!(end.cause, ExitCause::BadResult { .. }), "{:?}", end.cause);
}

#[test]
fn artifacts_are_found_after_success_and_after_failure() {
    let mut world = World::new();
    let mut job = world.shell("mkdir -p out; echo report > out/report.txt; exit 1");
    job.artifacts = vec!["out/*.txt".into()];
    let (end, _) = world.run(job);
    assert_eq!(code(&end), 1);
    let found: Vec<(&str, u64)> = end.artifacts.iter().map(|found| (found.path.as_str(), found.bytes)).collect();
    assert_eq!(found, [("out/report.txt", 7)]);
}
