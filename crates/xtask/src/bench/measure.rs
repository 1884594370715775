//! Runs one program to its end and says what it cost: time by the clock, processor time, memory.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run of a program cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From the start of the process to its end.
    pub wall: Duration,
    /// User and system time of it and of all its children.
    pub cpu: Duration,
    /// The largest resident memory of any one process of the tree, in bytes.
    pub peak_bytes: u64,
}

/// Runs a command with its output thrown away. Anything but success is a failure of the benchmark.
pub fn measure(command: &mut Command) -> Result<Cost, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let child = command.spawn().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
    let (status, usage) = wait(child.id()).map_err(|error| format!("cannot wait for {command:?}: {error}"))?;
    let wall = start.elapsed();
    if status != 0 {
        return Err(format!("{command:?} ended with the raw status {status}; run it by hand to see why"));
    }
    Ok(Cost { wall, cpu: usage.cpu, peak_bytes: usage.peak_bytes })
}

struct Usage {
    cpu: Duration,
    peak_bytes: u64,
}

/// Waits for one child and takes its accounts, which the standard library does not hand out.
#[expect(unsafe_code, reason = "no safe crate of ours offers wait4, the only call that gives one child's usage")]
fn wait(process: u32) -> std::io::Result<(i32, Usage)> {
    let process = libc::pid_t::try_from(process).expect("the kernel gave this number out");
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the right types.
        let waited = unsafe { libc::wait4(process, &raw mut status, 0, &raw mut usage) };
        if waited == process {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs()) + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    Ok((status, Usage { cpu, peak_bytes: usage.ru_maxrss.unsigned_abs() * 1024 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_that_of_the_child() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
        let cost = measure(&mut command).expect("a shell counts");
        assert!(cost.cpu > Duration::ZERO && cost.wall > Duration::ZERO);
        assert!(cost.peak_bytes > 100 << 10, "{cost:?}");
    }

    #[test]
    fn a_failing_program_is_not_a_figure() {
        assert!(measure(Command::new("/bin/sh").args(["-c", "exit 3"])).is_err());
        assert!(measure(&mut Command::new("/no/such/program")).is_err());
    }
}
