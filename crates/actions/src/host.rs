//! All attempts that run in this process: starts them, reads what they print, sees their whole trees to the end.

mod birthplace;
mod tree;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::{Attempt, Epoch, ExitCause, Millis};
use polling::Poller;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Map, Value};

use crate::artifacts::{self, FoundArtifact};
use crate::environment::Environment;
use crate::job::Job;
use crate::mark::Mark;
use crate::outputs;
use crate::program::{Programs, StartError, diagnose};
use crate::scratch::Scratch;
use crate::sys::{
    self, CaughtSignals, Exit, OomCounter, Poll, ProcessHandle, Reaped, SpawnError, Spawner, Start, StringBlock,
};
use birthplace::Birthplaces;
use tree::{Orphans, Stage};

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How much is read from one attempt per round, so that a chatty one delays no other.
const PIPE_ROUND_BYTES: usize = 256 * 1024;
/// How much is read from all attempts per round: what the events of one round hold at most, about.
const ROUND_BYTES: usize = 1024 * 1024;
/// An attempt that ends sooner is read once, at its end, and its pipe is never registered with the poller.
const WATCH_OUTPUT_AFTER: Duration = Duration::from_millis(10);
/// How long output is read after the main process has ended.
const OUTPUT_AFTER_END: Duration = Duration::from_millis(100);
/// How often orphans are looked for while attempts run and nothing ends, so that dead ones do not pile up.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The most leftover processes that are named.
const NAMED_LEFTOVERS: usize = 16;

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// A folder of the data directory for the files behind `$BATON_OUTPUT`; made where it is missing.
    pub scratch: PathBuf,
    /// Whether INT, TERM and HUP to this process are reported as [`HostEvent::Signal`] instead of ending it.
    pub catch_signals: bool,
    /// The cgroup in which those of runs are made, mostly [`own_cgroup`](crate::own_cgroup); `None`: none are made.
    pub cgroup: Option<PathBuf>,
    /// As what this process owns its runs.
    pub owner: Epoch,
}

/// How an attempt is to be ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stop {
    /// Politely: SIGTERM.
    Terminate,
    /// Without asking: SIGKILL, until nothing is left.
    Kill,
}

/// A signal to this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaughtSignal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal is gone.
    Hangup,
}

/// How surely no process of an attempt escapes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Containment {
    /// Every orphan of ours becomes our child, so none is lost, and carries a mark that says whose it is. One that has
    /// changed its resource limits as well as its environment, group and streams is ended with the last of the
    /// attempts that it may belong to. What outlives this process is found by its name or mark.
    Subreaper,
    /// The same, and all are born in a cgroup of their run, in which they are found when this process has died.
    Cgroup,
}

/// What a host has to tell.
#[derive(Clone, PartialEq, Debug)]
pub enum HostEvent {
    /// An attempt printed this.
    Output {
        /// The attempt.
        key: Attempt,
        /// Standard output and error in the order of writing, exactly.
        bytes: Vec<u8>,
    },
    /// An attempt has ended, its output is read, and nothing of it runs any more (unless it was detached).
    Ended {
        /// The attempt.
        key: Attempt,
        /// How.
        end: Box<Ended>,
    },
    /// Processes of an attempt have been killed but do not die, mostly because they wait in the kernel for a device.
    /// The attempt still counts as running; this is told once.
    Stuck {
        /// The attempt.
        key: Attempt,
        /// `pid name (state)` of each.
        processes: Vec<String>,
    },
    /// Something that was given to [`Host::watch`] can be read.
    Readable {
        /// Its token.
        token: u32,
    },
    /// A signal to this process.
    Signal(CaughtSignal),
}

/// How one attempt ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Ended {
    /// The cause, as the operating system told it.
    pub cause: ExitCause,
    /// From the start of the main process to its end.
    pub duration: Millis,
    /// What it set through `$BATON_OUTPUT`.
    pub outputs: Map<String, Value>,
    /// The folder that the artefacts' paths are relative to.
    pub folder: PathBuf,
    /// The files it left.
    pub artifacts: Vec<FoundArtifact>,
    /// Processes of its tree that outlived the main one and were ended: `pid name` of each.
    pub leftovers: Vec<String>,
    /// Whether the main process had ended before anybody told it to.
    pub by_itself: bool,
}

/// The manager of all attempts of this process. Single-threaded: everything happens inside [`Host::wait`].
pub struct Host {
    poll: Poll,
    spawner: Spawner,
    birthplaces: Birthplaces,
    environment: Environment,
    programs: Programs,
    scratch: Scratch,
    null: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_key: HashMap<Attempt, usize>,
    /// The main processes that are not reaped.
    mains: HashMap<u32, usize>,
    orphans: Orphans,
    /// Attempts whose main process has ended or was killed, but not everything about them is over.
    settling: Vec<usize>,
    /// Attempts whose pipe is not registered yet, by the time when it shall be.
    unwatched: VecDeque<(Instant, SlotId)>,
    /// Asked for since the last round.
    stops: Vec<(usize, Stop)>,
    next_sweep: Instant,
    watched: Vec<OwnedFd>,
    signals: Option<CaughtSignals>,
    oom: OomCounter,
    arguments_block: StringBlock,
    environment_block: StringBlock,
    keys: Vec<usize>,
    buffer: Vec<u8>,
}

/// A place for an attempt; the generation tells its tenants apart.
struct Slot {
    generation: u32,
    running: Option<Box<Running>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SlotId {
    at: usize,
    generation: u32,
}

struct Running {
    key: Attempt,
    mark: Mark,
    job: Job,
    pid: u32,
    handle: ProcessHandle,
    pipe: Option<File>,
    pipe_watched: bool,
    output_name: String,
    started: Instant,
    /// The hardest signal that its tree was sent.
    pressed: Option<Stop>,
    ended: Option<MainEnd>,
    stage: Option<Stage>,
    leftovers: Vec<String>,
}

#[derive(Clone, Copy)]
struct MainEnd {
    at: Instant,
    exit: Option<Exit>,
    out_of_memory: bool,
    by_itself: bool,
}

impl Running {
    /// Whether what its main process leaves running stays.
    fn lets_go(&self) -> bool {
        self.job.detach && self.pressed.is_none()
    }

    fn add_leftover(&mut self, pid: u32, name: &str) {
        let number = format!("{pid} ");
        if self.leftovers.len() < NAMED_LEFTOVERS && !self.leftovers.iter().any(|known| known.starts_with(&number)) {
            self.leftovers.push(number + name);
        }
    }
}

/// What a key of the poller stands for.
#[derive(Clone, Copy)]
enum Token {
    Main(usize),
    Pipe(usize),
    Orphan(usize),
    Watched(usize),
    Signals,
}

impl Token {
    const KINDS: usize = 5;

    fn key(self) -> usize {
        let (number, kind) = match self {
            Token::Main(slot) => (slot, 0),
            Token::Pipe(slot) => (slot, 1),
            Token::Orphan(at) => (at, 2),
            Token::Watched(token) => (token, 3),
            Token::Signals => (0, 4),
        };
        number * Self::KINDS + kind
    }

    fn of(key: usize) -> Self {
        let number = key / Self::KINDS;
        match key % Self::KINDS {
            0 => Token::Main(number),
            1 => Token::Pipe(number),
            2 => Token::Orphan(number),
            3 => Token::Watched(number),
            _ => Token::Signals,
        }
    }
}

/// What a read of a pipe met.
#[derive(PartialEq, Eq)]
enum Pipe {
    /// Nobody can write to it any more.
    Closed,
    /// There is nothing in it now.
    Empty,
    /// There is more, left for the next round.
    More,
}

impl Host {
    /// Sets this process up for children: it adopts orphans, has as many descriptors as it may, keeps its own from
    /// its children, and ignores SIGPIPE (as Rust programs do anyway).
    pub fn new(options: HostOptions) -> io::Result<Self> {
        sys::become_subreaper()?;
        sys::raise_descriptor_limit();
        sys::keep_descriptors_from_children();
        sys::prepare_signals()?;
        let null = OwnedFd::from(File::open("/dev/null")?);
        let poll = Poll::new()?;
        let signals = if options.catch_signals { Some(CaughtSignals::catch()?) } else { None };
        if let Some(signals) = &signals {
            poll.watch(signals.as_fd(), Token::Signals.key())?;
        }
        Ok(Self {
            poll,
            spawner: Spawner::new(),
            birthplaces: Birthplaces::new(options.cgroup, options.owner),
            environment: Environment::snapshot(),
            programs: Programs::default(),
            scratch: Scratch::create(&options.scratch)?,
            null,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            mains: HashMap::new(),
            orphans: Orphans::new(),
            settling: Vec::new(),
            unwatched: VecDeque::new(),
            stops: Vec::new(),
            next_sweep: Instant::now(),
            watched: Vec::new(),
            signals,
            oom: OomCounter::new(),
            arguments_block: StringBlock::default(),
            environment_block: StringBlock::default(),
            keys: Vec::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// The poller; `notify()` on it makes [`Host::wait`] return.
    pub fn poller(&self) -> Arc<Poller> {
        Arc::clone(self.poll.poller())
    }

    /// How surely no process escapes. Whether the machine allows cgroups shows when the first attempt starts.
    pub fn containment(&self) -> Containment {
        self.birthplaces.containment()
    }

    /// The run `<store>/<run>/` is over: its cgroup is removed, or, where something of it still runs, when a later run
    /// is over or this host goes. It outlives this host only with detached processes in it.
    pub fn release(&mut self, prefix: &str) {
        self.birthplaces.release(prefix);
    }

    /// How many attempts have started and not ended.
    pub fn running(&self) -> usize {
        self.by_key.len()
    }

    /// The process of an attempt that runs.
    pub fn pid(&self, key: Attempt) -> Option<u32> {
        self.running_at(*self.by_key.get(&key)?).map(|running| running.pid)
    }

    /// Reports `source` in each round in which it can be read; the token is the answer.
    pub fn watch(&mut self, source: impl AsFd) -> io::Result<u32> {
        // A copy of our own, so that it is open as long as it is registered.
        let copy = source.as_fd().try_clone_to_owned()?;
        let token = self.watched.len();
        self.poll.watch(copy.as_fd(), Token::Watched(token).key())?;
        self.watched.push(copy);
        Ok(token as u32)
    }

    /// Starts an attempt. Its start must be on disk already. Nothing was started where this fails.
    ///
    /// # Panics
    /// When the attempt runs already: two of one name never run together.
    pub fn start(&mut self, key: Attempt, job: Job) -> Result<u32, StartError> {
        assert!(!self.by_key.contains_key(&key), "attempt {key:?} is started while it runs");
        let output_name = self.scratch.next_name();
        let mark = Mark::of_attempt(&job.attempt_name);
        // From before there is a process: it may run for a while before this one goes on.
        let started = Instant::now();
        let (pid, handle, pipe) = self.spawn(&job, &output_name, mark)?;
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, running: None });
            self.slots.len() - 1
        });
        if let Err(error) = self.poll.watch(handle.as_fd(), Token::Main(at).key()) {
            self.free.push(at);
            return Err(abandon(pid, error));
        }
        let slot = &mut self.slots[at];
        slot.generation = slot.generation.wrapping_add(1);
        self.unwatched.push_back((started + WATCH_OUTPUT_AFTER, SlotId { at, generation: slot.generation }));
        slot.running = Some(Box::new(Running {
            key,
            mark,
            job,
            pid,
            handle,
            pipe: Some(pipe),
            pipe_watched: false,
            output_name,
            started,
            pressed: None,
            ended: None,
            stage: None,
            leftovers: Vec::new(),
        }));
        self.by_key.insert(key, at);
        self.mains.insert(pid, at);
        self.orphans.add_group(pid, at);
        Ok(pid)
    }

    /// Tells the whole tree of an attempt to end, at the beginning of the next round. An attempt that has ended
    /// takes no notice.
    pub fn signal(&mut self, key: Attempt, how: Stop) {
        if let Some(at) = self.by_key.get(&key) {
            self.stops.push((*at, how));
        }
    }

    /// Waits until something happened, or `timeout` has passed, or somebody notified the poller; adds what happened
    /// to `out`. May return early with nothing.
    pub fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<HostEvent>) -> io::Result<()> {
        self.deliver_stops();
        let now = Instant::now();
        let timeout = match self.next_due().map(|due| due.saturating_duration_since(now)) {
            Some(due) => Some(timeout.map_or(due, |timeout| timeout.min(due))),
            None => timeout,
        };
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        self.poll.wait(timeout, &mut keys)?;
        let now = Instant::now();
        let mut budget = ROUND_BYTES;
        let mut anything_ended = false;
        for key in &keys {
            match Token::of(*key) {
                Token::Pipe(at) => {
                    let mut allowed = budget.min(PIPE_ROUND_BYTES);
                    budget -= allowed;
                    if allowed > 0 && self.read_pipe(at, &mut allowed, out) == Pipe::Closed {
                        self.close_pipe(at);
                    }
                    budget += allowed;
                }
                Token::Main(at) => anything_ended |= self.reap_main(at, now),
                Token::Orphan(at) => {
                    self.orphans.reap(at, &self.poll);
                    anything_ended = true;
                }
                Token::Watched(token) => out.push(HostEvent::Readable { token: token as u32 }),
                Token::Signals => self.take_signals(out),
            }
        }
        self.keys = keys;
        if anything_ended || (now >= self.next_sweep && self.needs_sweeps()) {
            self.next_sweep = now + SWEEP_EVERY;
            self.sweep();
        }
        self.settle_all(now, out);
        self.watch_due_pipes(now);
        Ok(())
    }

    fn spawn(&mut self, job: &Job, output_name: &str, mark: Mark) -> Result<(u32, ProcessHandle, File), StartError> {
        let command = job.arguments.first().map_or("", String::as_str);
        let mut argument_bytes = 0;
        self.arguments_block.clear();
        for (number, argument) in job.arguments.iter().enumerate() {
            argument_bytes += argument.len() + 1;
            self.arguments_block
                .push(&[argument.as_bytes()])
                .map_err(|_| StartError::Nul { what: format!("argument {number} of `{command}`") })?;
        }
        let output_path = self.scratch.path().join(output_name);
        self.environment.fill(&mut self.environment_block, job, output_path.as_os_str().as_bytes())?;
        let folder = std::ffi::CString::new(job.folder.as_os_str().as_bytes())
            .map_err(|_| StartError::Nul { what: "the working folder".into() })?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| refused(errno, command))?;
        // Only our end: the other one is the child's standard output, which it expects to wait for it.
        rustix::io::ioctl_fionbio(&reader, true).map_err(|errno| refused(errno, command))?;
        let input = match &job.input {
            Some(bytes) => Some(sys::stdin_from(bytes).map_err(busy)?),
            None => None,
        };
        let input = input.as_ref().unwrap_or(&self.null);
        let mut cgroup = self.birthplaces.of(job);
        let (mut searched_again, mut made_again) = (false, false);
        loop {
            let program = self.programs.find(command, self.environment.path(job), &job.folder)?;
            let started = self.spawner.spawn(Start {
                program: &program,
                arguments: &mut self.arguments_block,
                environment: &mut self.environment_block,
                folder: &folder,
                input: input.as_fd(),
                output: writer.as_fd(),
                mark,
                cgroup: cgroup.as_ref().map(|cgroup| cgroup.as_fd()),
            });
            match started {
                Ok((pid, pidfd)) => return Ok((pid, ProcessHandle::from_pidfd(pidfd), reader.into())),
                Err(SpawnError::Unborn(errno)) if cgroup.is_some() && StartError::busy(errno).is_none() => {
                    self.birthplaces.note_refusal(job, errno);
                    // One that somebody has removed while it was empty is made again.
                    cgroup = if made_again { None } else { self.birthplaces.of(job) };
                    made_again = true;
                }
                // A program that was found before may have moved since.
                Err(SpawnError::NoProgram(Errno::NOENT | Errno::ACCESS))
                    if !searched_again && self.programs.forget(command) =>
                {
                    searched_again = true;
                }
                Err(SpawnError::Unborn(errno) | SpawnError::NoProgram(errno)) => {
                    let program = Path::new(std::ffi::OsStr::from_bytes(program.as_bytes()));
                    return Err(diagnose(errno, command, program, &job.folder, argument_bytes));
                }
            }
        }
    }

    fn running_at(&self, at: usize) -> Option<&Running> {
        self.slots.get(at)?.running.as_deref()
    }

    fn running_at_mut(&mut self, at: usize) -> Option<&mut Running> {
        self.slots.get_mut(at)?.running.as_deref_mut()
    }

    fn slot_id(&self, at: usize) -> SlotId {
        SlotId { at, generation: self.slots[at].generation }
    }

    fn is_tenant(&self, id: SlotId) -> bool {
        self.slots.get(id.at).is_some_and(|slot| slot.generation == id.generation && slot.running.is_some())
    }

    fn needs_sweeps(&self) -> bool {
        !self.by_key.is_empty() || !self.orphans.is_empty()
    }

    fn next_due(&mut self) -> Option<Instant> {
        while let Some((_, id)) = self.unwatched.front()
            && !self.is_tenant(*id)
        {
            self.unwatched.pop_front();
        }
        let mut due = self.unwatched.front().map(|(due, _)| *due);
        let mut sooner = |at: Instant| due = Some(due.map_or(at, |due: Instant| due.min(at)));
        if self.needs_sweeps() {
            sooner(self.next_sweep);
        }
        for at in &self.settling {
            let Some(running) = self.running_at(*at) else { continue };
            if let Some(stage) = &running.stage {
                sooner(stage.due);
            }
            if let (Some(_), Some(ended)) = (&running.pipe, &running.ended) {
                sooner(ended.at + OUTPUT_AFTER_END);
            }
        }
        due
    }

    fn take_signals(&mut self, out: &mut Vec<HostEvent>) {
        let Some(signals) = &self.signals else { return };
        for number in signals.take() {
            out.extend(match number {
                libc::SIGINT => Some(HostEvent::Signal(CaughtSignal::Interrupt)),
                libc::SIGTERM => Some(HostEvent::Signal(CaughtSignal::Terminate)),
                libc::SIGHUP => Some(HostEvent::Signal(CaughtSignal::Hangup)),
                _ => None,
            });
        }
    }

    fn reap_main(&mut self, at: usize, now: Instant) -> bool {
        let Some(running) = self.slots[at].running.as_deref_mut() else { return false };
        let exit = match sys::reap(running.pid) {
            Reaped::Alive => return false,
            Reaped::Ended(exit) => Some(exit),
            Reaped::NotOurs => None,
        };
        let killed = matches!(exit, Some(Exit::Signal { signal: libc::SIGKILL, .. }));
        let out_of_memory = killed && running.pressed != Some(Stop::Kill) && self.oom.has_struck();
        let by_itself = running.pressed.is_none();
        running.ended = Some(MainEnd { at: now, exit, out_of_memory, by_itself });
        self.poll.forget(running.handle.as_fd());
        self.mains.remove(&running.pid);
        if !self.settling.contains(&at) {
            self.settling.push(at);
        }
        true
    }

    /// Reads while more is `allowed`, and takes off it what was read.
    fn read_pipe(&mut self, at: usize, allowed: &mut usize, out: &mut Vec<HostEvent>) -> Pipe {
        let Some(running) = self.slots.get_mut(at).and_then(|slot| slot.running.as_deref_mut()) else {
            return Pipe::Empty;
        };
        let Some(pipe) = &mut running.pipe else { return Pipe::Closed };
        while *allowed > 0 {
            match pipe.read(&mut self.buffer) {
                Ok(0) => return Pipe::Closed,
                Ok(count) => {
                    out.push(HostEvent::Output { key: running.key, bytes: self.buffer[..count].to_vec() });
                    *allowed = allowed.saturating_sub(count);
                    // A pipe gives all it has, so a short read says that it is empty.
                    if count < self.buffer.len() {
                        return Pipe::Empty;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Pipe::Empty,
            }
        }
        Pipe::More
    }

    fn close_pipe(&mut self, at: usize) {
        let Some(running) = self.slots[at].running.as_deref_mut() else { return };
        if let Some(pipe) = running.pipe.take()
            && running.pipe_watched
        {
            self.poll.forget(pipe.as_fd());
        }
    }

    fn watch_pipe(&mut self, at: usize) {
        let Some(running) = self.slots[at].running.as_deref_mut() else { return };
        if let Some(pipe) = &running.pipe
            && !running.pipe_watched
        {
            // Where the kernel has no memory for it now, the next round tries again.
            running.pipe_watched = self.poll.watch(pipe.as_fd(), Token::Pipe(at).key()).is_ok();
        }
    }

    fn watch_due_pipes(&mut self, now: Instant) {
        while let Some((due, id)) = self.unwatched.front().copied() {
            let tenant = self.is_tenant(id);
            if tenant && due > now {
                break;
            }
            self.unwatched.pop_front();
            if tenant {
                self.watch_pipe(id.at);
                if self.running_at(id.at).is_some_and(|running| running.pipe.is_some() && !running.pipe_watched) {
                    self.unwatched.push_back((now + WATCH_OUTPUT_AFTER, id));
                    break;
                }
            }
        }
    }

    fn settle_all(&mut self, now: Instant, out: &mut Vec<HostEvent>) {
        if self.settling.is_empty() {
            return;
        }
        let mut settling = std::mem::take(&mut self.settling);
        settling.retain(|at| !self.settle(*at, now, out));
        self.settling.append(&mut settling);
    }

    /// Carries an attempt towards its end; says whether it is there.
    fn settle(&mut self, at: usize, now: Instant, out: &mut Vec<HostEvent>) -> bool {
        let Some(running) = self.running_at(at) else { return true };
        let Some(ended) = running.ended else {
            // Killed, and not dead yet.
            self.press_leftovers(at, now, out);
            return false;
        };
        let detached = running.lets_go();
        let tree_is_gone = self.tree_is_gone(at);
        if self.running_at(at).is_some_and(|running| running.pipe.is_some()) {
            let mut allowed = PIPE_ROUND_BYTES;
            let met = self.read_pipe(at, &mut allowed, out);
            let over = now >= ended.at + OUTPUT_AFTER_END;
            let close = match met {
                Pipe::Closed => true,
                // With nobody of the tree left to write, empty is the end.
                Pipe::Empty => tree_is_gone || over,
                // With nobody left to write there is an end to what is there, and all of it is wanted.
                Pipe::More => over && (detached || !tree_is_gone),
            };
            if close {
                self.close_pipe(at);
            } else {
                self.watch_pipe(at);
            }
        }
        if !tree_is_gone {
            self.press_leftovers(at, now, out);
            return false;
        }
        if self.running_at(at).is_some_and(|running| running.pipe.is_some()) {
            return false;
        }
        self.finish(at, ended, out);
        true
    }

    fn finish(&mut self, at: usize, ended: MainEnd, out: &mut Vec<HostEvent>) {
        self.orphans.forget_attempt(self.slot_id(at));
        let Some(running) = self.slots[at].running.take() else { return };
        self.free.push(at);
        self.by_key.remove(&running.key);
        self.birthplaces.leave(&running.job);
        let mut cause = match ended.exit {
            _ if ended.out_of_memory => ExitCause::OutOfMemory,
            Some(Exit::Code(code)) => ExitCause::Exit { code },
            Some(Exit::Signal { signal, core_dumped }) => {
                ExitCause::Signal { signal, name: signal_name(signal), core_dumped }
            }
            None => ExitCause::Lost,
        };
        let accepted = matches!(cause, ExitCause::Exit { code } if running.job.accept.contains(code));
        let mut bad_result = |error: String| {
            // Where the attempt failed anyway, the failure is what matters.
            if accepted {
                cause = ExitCause::BadResult { error };
            }
        };
        let outputs = outputs::take(self.scratch.folder(), &running.output_name).unwrap_or_else(|error| {
            bad_result(error);
            Map::new()
        });
        let artifacts = if running.job.artifacts.is_empty() {
            Vec::new()
        } else {
            artifacts::find(&running.job.folder, &running.job.artifacts).unwrap_or_else(|error| {
                bad_result(error);
                Vec::new()
            })
        };
        let duration = ended.at.saturating_duration_since(running.started);
        let end = Ended {
            cause,
            duration: Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
            outputs,
            folder: running.job.folder,
            artifacts,
            leftovers: running.leftovers,
            by_itself: ended.by_itself,
        };
        out.push(HostEvent::Ended { key: running.key, end: Box::new(end) });
    }
}

/// A process that was born but cannot be watched must not run: it is ended before it can do much.
fn abandon(pid: u32, error: io::Error) -> StartError {
    sys::group_signal(pid, rustix::process::Signal::KILL);
    sys::reap_killed(pid);
    busy(error)
}

fn busy(error: io::Error) -> StartError {
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
    StartError::busy(errno).unwrap_or(StartError::Busy { what: "resources", source: error })
}

fn refused(errno: Errno, command: &str) -> StartError {
    StartError::busy(errno).unwrap_or_else(|| StartError::Other { command: command.to_owned(), source: errno.into() })
}

fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    let known = usize::try_from(number).ok().and_then(|number| NAMES.get(number.checked_sub(1)?));
    known.map_or_else(|| format!("SIG{number}"), |name| (*name).to_owned())
}
