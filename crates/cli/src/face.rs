//! How the command talks: to standard output for data, to standard error for the rest, in text or in JSON.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::failure::Failure;

/// Text is gathered up to so many bytes before it is written.
const BUFFER_BYTES: usize = 64 * 1024;

/// So much waits for a slow reader while runs are driven here; what comes then is counted and not shown.
const WAITING_BYTES: usize = 4 << 20;
/// A reader that has not caught up by half of that in so long is one that does not read.
const READER_PATIENCE: Duration = Duration::from_secs(1);
/// The same for a program that reads JSON lines, which must not have gaps: so much waits for it,
const WAITING_BYTES_OF_PROGRAM: usize = 64 << 20;
/// and when it has not caught up by half in so long after that, it gets nothing more at all.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(3);
/// A pipe that says it has room takes so much without waiting (on Linux; elsewhere less, and a write may then wait).
const PIPE_BYTES: usize = 4096;

/// In which form a command answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one document, or one line for each thing.
    Json,
}

/// What is done about a reader who is slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// It is waited for, however long it takes.
    Endless,
    /// What it does not read is counted and left out.
    LeavesOut,
    /// It gets every byte up to the one after which it gets nothing more.
    GivesUp,
}

/// One of the two standard streams, buffered by us: `std`'s would write at every line.
#[derive(Debug)]
pub struct Stream {
    is_error: bool,
    buffer: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// Since when something waits in the buffer.
    since: Option<Instant>,
    is_closed: bool,
    /// Why nothing can be written any more, where that is not that the reader has gone away.
    broken: Option<rustix::io::Errno>,
    patience: Patience,
    /// Bytes that a reader who does not read will not see; `None`: it reads.
    lost: Option<u64>,
}

impl Stream {
    fn new(is_error: bool) -> Self {
        Self {
            is_error,
            buffer: Vec::new(),
            written: 0,
            since: None,
            is_closed: false,
            broken: None,
            patience: Patience::Endless,
            lost: None,
        }
    }

    fn descriptor(&self) -> BorrowedFd<'static> {
        if self.is_error { rustix::stdio::stderr() } else { rustix::stdio::stdout() }
    }

    /// Whether a person sits at the other end.
    pub fn is_terminal(&self) -> bool {
        rustix::termios::isatty(self.descriptor())
    }

    /// The size of the terminal in columns and rows.
    pub fn size(&self) -> Option<(usize, usize)> {
        let size = rustix::termios::tcgetwinsize(self.descriptor()).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
    }

    /// Whether the reader has gone away; what is written then goes nowhere.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// While runs are driven here nobody may hold them up: not a pager that waits for a key, not a stopped terminal.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Why not everything could be written, where the reader had not simply gone away.
    pub fn broken(&self) -> Option<std::io::Error> {
        self.broken.map(std::io::Error::from)
    }

    /// Adds bytes, and writes when there are many.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        let (limit, patience) = match self.patience {
            Patience::Endless => (usize::MAX, Duration::ZERO),
            Patience::LeavesOut => (WAITING_BYTES, READER_PATIENCE),
            Patience::GivesUp => (WAITING_BYTES_OF_PROGRAM, PROGRAM_PATIENCE),
        };
        let is_full = self.waiting().len() + bytes.len() > limit;
        if is_full && self.lost.is_none() && !self.wait_for_reader(limit, patience) {
            match self.patience {
                Patience::Endless | Patience::LeavesOut => self.lost = Some(0),
                Patience::GivesUp => {
                    self.broken = Some(rustix::io::Errno::TIMEDOUT);
                    self.is_closed = true;
                    (self.buffer, self.written) = (Vec::new(), 0);
                    return;
                }
            }
        }
        if let Some(lost) = &mut self.lost {
            *lost += bytes.len() as u64;
            return;
        }
        self.buffer.extend_from_slice(bytes);
        if self.waiting().len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Waits until a reader that does read has caught up by half; answers whether it did, in the time that it has.
    fn wait_for_reader(&mut self, limit: usize, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.waiting().len() > limit / 2 && !self.is_closed {
            if !has_room(self.descriptor(), Some(end)) {
                return false;
            }
            self.flush();
        }
        true
    }

    /// What was gathered and not yet written.
    fn waiting(&self) -> &[u8] {
        &self.buffer[self.written..]
    }

    /// Whether something was gathered and not yet written.
    pub fn has_waiting(&self) -> bool {
        !self.waiting().is_empty()
    }

    /// Writes what was gathered, if it has waited so long.
    pub fn flush_if_older(&mut self, limit: Duration) {
        if !self.has_waiting() {
            return;
        }
        match self.since {
            Some(since) if since.elapsed() < limit => {}
            Some(_) => self.flush(),
            None => self.since = Some(Instant::now()),
        }
    }

    /// Writes what was gathered. A reader that has gone away is remembered and is no failure.
    pub fn flush(&mut self) {
        let descriptor = self.descriptor();
        self.since = None;
        while self.has_waiting() && !self.is_closed {
            let mut rest = self.waiting();
            if self.patience != Patience::Endless {
                if !has_room(descriptor, Some(Instant::now())) {
                    break;
                }
                // A pipe that has room at all has room for so much.
                rest = &rest[..rest.len().min(PIPE_BYTES)];
            }
            match rustix::io::write(descriptor, rest) {
                Ok(0) => self.is_closed = true,
                Ok(count) => self.written += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if self.patience == Patience::Endless => {
                    has_room(descriptor, None);
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => {
                    self.broken = Some(error).filter(|error| *error != rustix::io::Errno::PIPE);
                    self.is_closed = true;
                }
            }
        }
        if self.is_closed || !self.has_waiting() {
            self.buffer.clear();
            self.buffer.shrink_to(2 * BUFFER_BYTES);
            self.written = 0;
        } else if self.written > self.buffer.len() / 2 {
            self.buffer.drain(..self.written);
            self.written = 0;
        }
        if !self.has_waiting()
            && let Some(lost) = self.lost.take()
        {
            let lost = crate::words::bytes(lost);
            self.write(format!("\n… {lost} were not shown, nobody was reading; `baton logs` has all …\n").as_bytes());
        }
    }
}

/// Waits until a stream takes something, at most until then (`None`: for ever); answers whether it does.
fn has_room(descriptor: BorrowedFd<'_>, end: Option<Instant>) -> bool {
    loop {
        let mut wanted = [PollFd::new(&descriptor, PollFlags::OUT)];
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let limit = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut wanted, limit.as_ref()) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            // The write itself will tell.
            Err(_) => return true,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How the command talks.
#[derive(Debug)]
pub struct Face {
    /// The form of answers.
    pub format: Format,
    /// Whether only failures are told.
    pub quiet: bool,
    /// Standard output.
    pub out: Stream,
    /// Standard error.
    pub err: Stream,
    /// Whether standard output takes colours.
    pub color: bool,
    /// Whether standard error takes colours.
    pub color_err: bool,
}

impl Face {
    /// A face as the options say; `color`: `None` means by the streams and the environment.
    pub fn new(format: Format, quiet: bool, color: Option<bool>) -> Self {
        let (out, err) = (Stream::new(false), Stream::new(true));
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let wanted = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
        let choose = |stream: &Stream| color.unwrap_or_else(|| wanted && stream.is_terminal());
        let (color, color_err) = (choose(&out), choose(&err));
        Self { format, quiet, out, err, color, color_err }
    }

    /// Whether answers are for programs.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Data for people, on standard output.
    pub fn text(&mut self, text: &str) {
        self.out.write(text.as_bytes());
    }

    /// One JSON document for programs, on standard output, spread over lines.
    pub fn document(&mut self, value: &Value) {
        self.text(&format!("{value:#}\n"));
    }

    /// One JSON value on a line of its own, on standard output.
    pub fn line(&mut self, value: &Value) {
        self.text(&format!("{value}\n"));
    }

    /// A remark on standard error; nothing is lost by not reading it.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            self.out.flush();
            self.err.write(format!("{text}\n").as_bytes());
            self.err.flush();
        }
    }

    /// A failure on standard error.
    pub fn failure(&mut self, failure: &Failure) {
        self.out.flush();
        let text = if self.is_json() { format!("{}\n", failure.to_json()) } else { failure.to_text(self.color_err) };
        self.err.write(text.as_bytes());
        self.err.flush();
    }
}

/// A text in a colour, where colours are wanted.
pub fn paint(color: bool, code: &str, text: &str) -> String {
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
