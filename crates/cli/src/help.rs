//! What help says beyond the table of operations: examples, and what exit codes mean.

use baton_core::operation::Operation;

/// The end of `baton --help`.
pub const OVERVIEW: &str = "\
Exit codes:
  0    succeeded
  1    the run failed
  2    the arguments or the plan are wrong
  3    refused in this state of things
  4    the run is left waiting, to be resumed
  130  canceled

A first plan:
  baton init && baton run plan.yaml";

/// Examples for the end of an operation's help; the manual has them too.
pub fn examples(operation: Operation) -> &'static str {
    match operation {
        Operation::Run => {
            "\
Examples:
  baton run deploy.yaml
  baton run deploy.yaml -j 8 --var TARGET=staging --label ticket=42
  baton run deploy.yaml --from build --outputs-from 12
  baton run deploy.yaml --dry-run
  generate-plan | baton run -

Ctrl-C cancels the run; a second Ctrl-C does not wait for its steps. A run whose process dies \
goes on with `baton resume`."
        }
        Operation::Check => {
            "\
Examples:
  baton check deploy.yaml
  baton check deploy.yaml --var TARGET=staging --output json"
        }
        Operation::Graph => {
            "\
Examples:
  baton graph deploy.yaml
  baton graph deploy.yaml --format dot | dot -Tsvg > deploy.svg"
        }
        Operation::Schema => {
            "\
Examples:
  baton schema > plan.schema.json

With `# yaml-language-server: $schema=plan.schema.json` as a plan's first line, editors complete and check it."
        }
        Operation::Runs => {
            "\
Examples:
  baton runs
  baton runs --status failed --label ticket=42
  baton runs --output json"
        }
        Operation::Status => {
            "\
Examples:
  baton status
  baton status 12 --output json"
        }
        Operation::Logs => {
            "\
Examples:
  baton logs
  baton logs 12 build
  baton logs build --tail 20
  baton logs 12 build --attempt 2 --raw > build.log
  baton logs --follow"
        }
        Operation::Events => {
            "\
Examples:
  baton events 12
  baton events --follow --output json"
        }
        Operation::Why => {
            "\
Examples:
  baton why
  baton why 12 deploy"
        }
        Operation::Cancel => {
            "\
Examples:
  baton cancel 12
  baton cancel 12 --hurry"
        }
        Operation::Resume => {
            "\
Examples:
  baton resume
  baton resume 12"
        }
        Operation::Retry => {
            "\
Examples:
  baton retry 12
  baton retry 12 --from build"
        }
        Operation::Locks => {
            "\
Examples:
  baton locks
  baton locks --output json"
        }
        Operation::Doctor => {
            "\
Examples:
  baton doctor"
        }
        Operation::Backup => {
            "\
Examples:
  baton backup ../baton-backup"
        }
        Operation::Restore => {
            "\
Examples:
  baton restore ../baton-backup
  baton restore ../baton-backup --data-dir elsewhere/.baton"
        }
        Operation::Gc => {
            "\
Examples:
  baton gc --dry-run
  baton gc --keep-days 7 --keep-last 20"
        }
        Operation::Init => {
            "\
Examples:
  baton init
  baton init release.yaml"
        }
    }
}
