//! The plans that are run: the same steps and edges written as a plan, a ninja file and a makefile.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// How many steps a layer of the layered plan has.
const LAYER: u32 = 40;
/// How many dependencies a step of the layered plan draws; equal draws count once.
const DRAWS: u32 = 3;
/// The seed of the layered plan: every machine runs the same one.
const SEED: u64 = 0x_BA70_0000_0000_0001;

/// What each step runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `/bin/true`.
    True,
    /// `/bin/echo hi`, and the output is kept.
    EchoHi,
}

impl Program {
    /// Its name and arguments.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Program::True => &["/bin/true"],
            Program::EchoHi => &["/bin/echo", "hi"],
        }
    }

    /// What it prints.
    pub fn output(self) -> Option<&'static str> {
        match self {
            Program::True => None,
            Program::EchoHi => Some("hi\n"),
        }
    }
}

/// Which edges there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// None.
    Independent,
    /// Each step depends on the one before.
    Chain,
    /// Layers of 40; each step depends on about three of the layer before.
    Layered,
}

/// Steps, edges and what the steps run.
#[derive(Clone, Copy)]
pub struct Workload {
    /// The number of steps.
    pub steps: u32,
    /// The edges.
    pub shape: Shape,
    /// What each step runs.
    pub program: Program,
}

impl Workload {
    /// Writes `plan.json`, `build.ninja`, `builtin.ninja` and `Makefile`.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let ninja =
            |name, command: &str| self.write_ninja(command, &mut BufWriter::new(File::create(folder.join(name))?));
        let command = self.program.words().join(" ");
        ninja("build.ninja", &command)?;
        // Without the path the shell runs its own `echo` or `true`, and no program starts.
        ninja("builtin.ninja", command.trim_start_matches("/bin/"))?;
        self.write_plan(&mut BufWriter::new(File::create(folder.join("plan.json"))?))?;
        self.write_makefile(&mut BufWriter::new(File::create(folder.join("Makefile"))?))
    }

    fn write_plan(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{{\"plan_id\": \"bench\", \"version\": \"1\", \"steps\": [")?;
        let words = self.program.words();
        let mut program = format!("\"command\": \"{}\"", words[0]);
        if words.len() > 1 {
            program += &format!(", \"args\": [\"{}\"]", words[1..].join("\", \""));
        }
        self.each(|step, dependencies| {
            write!(out, "  {{\"id\": \"s{step}\", {program}")?;
            if !dependencies.is_empty() {
                let names: Vec<String> = dependencies.iter().map(|dependency| format!("\"s{dependency}\"")).collect();
                write!(out, ", \"depends_on\": [{}]", names.join(", "))?;
            }
            writeln!(out, "}}{}", if step + 1 < self.steps { "," } else { "" })
        })?;
        writeln!(out, "]}}")?;
        out.flush()
    }

    fn write_ninja(&self, command: &str, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "rule r\n  command = {command}")?;
        self.each(|step, dependencies| {
            write!(out, "build s{step}: r")?;
            for dependency in dependencies {
                write!(out, " s{dependency}")?;
            }
            writeln!(out)
        })?;
        out.flush()
    }

    fn write_makefile(&self, out: &mut impl Write) -> io::Result<()> {
        let command = self.program.words().join(" ");
        for target in [".PHONY: all", "all:"] {
            write!(out, "{target}")?;
            for step in 0..self.steps {
                write!(out, " s{step}")?;
            }
            writeln!(out)?;
        }
        self.each(|step, dependencies| {
            write!(out, "s{step}:")?;
            for dependency in dependencies {
                write!(out, " s{dependency}")?;
            }
            writeln!(out, "\n\t@{command}")
        })?;
        out.flush()
    }

    /// Calls back for each step with the steps that it depends on.
    fn each(&self, mut step_with: impl FnMut(u32, &[u32]) -> io::Result<()>) -> io::Result<()> {
        let mut random = SEED;
        let mut dependencies = Vec::new();
        for step in 0..self.steps {
            dependencies.clear();
            match self.shape {
                Shape::Independent => {}
                Shape::Chain => dependencies.extend(step.checked_sub(1)),
                Shape::Layered => {
                    if let Some(above) = (step / LAYER).checked_sub(1) {
                        dependencies.extend((0..DRAWS).map(|_| above * LAYER + draw(&mut random) % LAYER));
                        dependencies.sort_unstable();
                        dependencies.dedup();
                    }
                }
            }
            step_with(step, &dependencies)?;
        }
        Ok(())
    }
}

/// The next number of a small generator (splitmix64, its upper half).
fn draw(state: &mut u64) -> u32 {
    *state = state.wrapping_add(0x_9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0x_BF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x_94D0_49BB_1331_11EB);
    u32::try_from((mixed ^ (mixed >> 31)) >> 32).expect("half of 64 bits are 32")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).expect("memory takes all");
        String::from_utf8(out).expect("a workload is text")
    }

    #[test]
    fn a_chain_is_the_same_in_all_three() {
        let chain = Workload { steps: 2, shape: Shape::Chain, program: Program::EchoHi };
        let plan: serde_json::Value = serde_json::from_str(&text(|out| chain.write_plan(out))).expect("JSON");
        assert_eq!(
            plan["steps"][1],
            serde_json::json!({"id": "s1", "command": "/bin/echo", "args": ["hi"], "depends_on": ["s0"]})
        );
        assert_eq!(
            text(|out| chain.write_ninja("echo hi", out)),
            "rule r\n  command = echo hi\nbuild s0: r\nbuild s1: r s0\n"
        );
        assert_eq!(
            text(|out| chain.write_makefile(out)),
            ".PHONY: all s0 s1\nall: s0 s1\ns0:\n\t@/bin/echo hi\ns1: s0\n\t@/bin/echo hi\n"
        );
    }

    #[test]
    fn the_layered_plan_has_about_three_dependencies_each_and_all_point_one_layer_up() {
        let layered = Workload { steps: 2_000, shape: Shape::Layered, program: Program::True };
        let mut edges = 0;
        layered
            .each(|step, dependencies| {
                edges += dependencies.len();
                assert!(dependencies.iter().all(|dependency| dependency / LAYER + 1 == step / LAYER));
                Ok(())
            })
            .expect("nothing is written");
        assert!((5_500..=5_880).contains(&edges), "{edges}");
    }
}
