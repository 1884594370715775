//! Runs on a real data directory with real processes, through the engine alone.

use baton_core::{Log, RunCreated, RunStatus};
use baton_engine::{Drive, LocalEngine, Nobody, Submission};
use baton_lang::{Options, Source};
use baton_store::{Access, DataDir, SqliteStore, Store};

/// A plan and where its runs are kept.
struct Story {
    folder: tempfile::TempDir,
}

impl Story {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a scratch folder") }
    }

    fn directory(&self) -> DataDir {
        DataDir::at(self.folder.path().join(".baton"))
    }

    fn engine(&self) -> LocalEngine {
        let store = SqliteStore::open(&self.directory(), Access::Write).expect("the store opens");
        LocalEngine::open(store, std::env::current_exe().expect("a name")).expect("the engine opens")
    }

    fn submission(&self, plan: &str) -> Submission {
        let source = Source::new("plan.yaml", plan);
        let loaded = baton_lang::load(&source, &baton_engine::known_actions(), &Options::default());
        let compiled =
            loaded.compiled.unwrap_or_else(|| panic!("{}", baton_lang::render_all(&loaded.problems, &source, false)));
        let created = RunCreated {
            plan_id: compiled.plan_id().to_owned(),
            plan_sha256: baton_store::sha256_hex(plan.as_bytes()),
            plan_path: "plan.yaml".to_owned(),
            cwd: self.folder.path().display().to_string(),
            vars: compiled.vars.clone(),
            ..RunCreated::default()
        };
        Submission { source, compiled, created }
    }

    /// Runs the plan to its end; answers with how it ended and its events, a line each.
    fn run(&self, plan: &str) -> (RunStatus, Vec<String>) {
        let mut engine = self.engine();
        let run = engine.submit(self.submission(plan)).expect("it is submitted").run;
        let drive = engine.drive(&mut Nobody).expect("it is driven");
        assert_eq!(drive, Drive::Done);
        let events = engine.store().events(Log::Run(run), 0, 10_000).expect("its events");
        let lines = events.iter().map(|event| match &event.step {
            Some(step) => format!("{} {step} {}", event.kind, event.attempt.unwrap_or(0)),
            None => event.kind.clone(),
        });
        (engine.result(run).expect("it is over"), lines.collect())
    }
}

#[test]
fn steps_run_in_order_and_outputs_reach_those_who_use_them() {
    let story = Story::new();
    let (status, events) = story.run(
        r#"
plan_id: outputs
steps:
  - id: make
    command: sh
    args: [-c, 'echo "name=world" >> "$BATON_OUTPUT"; exit 0']
  - id: use
    command: test
    args: ["${{ steps.make.outputs.name }}", "=", world]
    depends_on: [make]
  - id: never
    command: "false"
    depends_on: [make]
    condition: steps.make.outputs.name == 'nobody'
"#,
    );
    assert_eq!(status, RunStatus::Succeeded, "{events:#?}");
    assert!(events.contains(&"step_skipped never 0".to_owned()), "{events:#?}");
    assert_eq!(events.last().map(String::as_str), Some("run_completed"));
}
