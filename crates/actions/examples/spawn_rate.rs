//! How many `/bin/true` a second run through a host, eight at a time, beside a bare loop that spawns as fast as it can.
//!
//! `cargo run --release -p baton-actions --example spawn_rate [steps] [width] [rounds] [command…]`

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baton_actions::{Host, HostEvent, HostOptions, Job};
use baton_core::graph::ExitCodes;
use baton_core::{Attempt, Epoch, RunId, StepIndex};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let steps: u32 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let width: u32 = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let rounds: u32 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let mut command: Vec<String> = arguments.collect();
    if command.is_empty() {
        command = vec!["/bin/true".to_owned()];
    }
    let folder = std::env::temp_dir().join(format!("baton-spawn-rate-{}", std::process::id()));
    let cgroup = baton_actions::own_cgroup();
    let options = HostOptions { scratch: folder.clone(), catch_signals: false, cgroup, owner: Epoch(1) };
    let mut host = Host::new(options)?;
    for _ in 0..rounds {
        let hosted = timed(|| run_hosted(&mut host, steps, width, &command))?;
        let bare = timed(|| run_bare(steps, width, &command))?;
        let rate = |cost: &Cost| f64::from(steps) / cost.wall.as_secs_f64();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(steps);
        println!(
            "host {:.0}/s, {:.1} µs CPU here, {:.1} with children   bare {:.0}/s, {:.1} µs, {:.1}   ratio {:.3}",
            rate(&hosted),
            each(hosted.own),
            each(hosted.all),
            rate(&bare),
            each(bare.own),
            each(bare.all),
            hosted.wall.as_secs_f64() / bare.wall.as_secs_f64(),
        );
    }
    drop(host);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

type Failure = Box<dyn std::error::Error>;

struct Cost {
    wall: Duration,
    /// What this process computed itself.
    own: Duration,
    /// The same with all children that were reaped: hardly disturbed by what else the machine does.
    all: Duration,
}

fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<Cost, Failure> {
    let (start, own, children) = (Instant::now(), own_cpu(), children_cpu()?);
    work()?;
    let own = own_cpu() - own;
    Ok(Cost { wall: start.elapsed(), own, all: own + (children_cpu()? - children) })
}

fn own_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// User and system time of all reaped children: fields 16 and 17 of our line, in hundredths of a second.
fn children_cpu() -> Result<Duration, Failure> {
    let line = std::fs::read_to_string("/proc/self/stat")?;
    let fields = line.rsplit(')').next().ok_or("a strange /proc/self/stat")?.split_ascii_whitespace();
    let ticks: Result<Vec<u64>, _> = fields.skip(13).take(2).map(str::parse).collect();
    Ok(Duration::from_millis(10 * ticks?.iter().sum::<u64>()))
}

fn run_hosted(host: &mut Host, steps: u32, width: u32, command: &[String]) -> Result<(), Failure> {
    let mut next = 0;
    let mut ended = 0;
    let mut events = Vec::new();
    while ended < steps {
        while next < steps && next - ended < width {
            next += 1;
            host.start(Attempt { run: RunId(1), step: StepIndex(next), number: 1 }, job(command))?;
        }
        host.wait(None, &mut events)?;
        ended += events.drain(..).filter(|event| matches!(event, HostEvent::Ended { .. })).count() as u32;
    }
    Ok(())
}

fn job(command: &[String]) -> Job {
    Job {
        arguments: command.to_vec(),
        folder: Path::new("/").to_owned(),
        environment: BTreeMap::new(),
        input: None,
        attempt_name: "store/1/step/1".to_owned(),
        run: RunId(1),
        step: "step".to_owned(),
        number: 1,
        artifacts: Vec::new(),
        detach: false,
        stop_grace: Duration::from_secs(10),
        accept: ExitCodes::ZERO,
    }
}

/// The standard library's spawn (posix_spawn underneath) without pipes, names or anything else, reaped by `wait`.
fn run_bare(steps: u32, width: u32, command: &[String]) -> Result<(), Failure> {
    let mut running = 0;
    for _ in 0..steps {
        if running == width {
            rustix::process::wait(rustix::process::WaitOptions::empty())?;
            running -= 1;
        }
        // Reaped by number, in any order, so the handle is of no use.
        let _child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        running += 1;
    }
    for _ in 0..running {
        rustix::process::wait(rustix::process::WaitOptions::empty())?;
    }
    Ok(())
}
