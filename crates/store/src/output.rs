//! The output segment of a run: what its attempts printed, in chunks that carry their own checksums.
//!
//! One file per run takes the chunks of all its attempts in the order in which they came. A chunk is a header of
//! [`HEADER_BYTES`] and the bytes. In the header, numbers in little-endian order:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `BOUT` |
//! | 4 | 1 | 0: bytes follow; 1: the number of bytes that were cut here follows, in 8 bytes |
//! | 5 | 3 | zeros |
//! | 8 | 4 | the step's place in the plan |
//! | 12 | 4 | the attempt |
//! | 16 | 8 | when, in milliseconds since 1970, signed |
//! | 24 | 4 | how many bytes follow, at most [`MAX_CHUNK_BYTES`] |
//! | 28 | 4 | CRC-32 of what follows |
//! | 32 | 4 | CRC-32 of the 32 bytes before |
//!
//! An event refers to a stretch of the file only after the stretch was synced.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use baton_core::{Output, StepIndex, Time};

use crate::directory::make_folder;
use crate::{Result, StoreError, filesystem};

const MAGIC: &[u8; 4] = b"BOUT";
const HEADER_BYTES: usize = 36;
const DATA: u8 = 0;
const CUT: u8 = 1;

/// The largest chunk, so that a reader needs a bounded buffer.
const MAX_CHUNK_BYTES: usize = 1 << 18;

/// Chunks are gathered up to this size before they are written.
const WRITE_BYTES: usize = 1 << 18;

/// How much output is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputLimits {
    /// The first so many bytes of an attempt are kept.
    pub head_bytes: u64,
    /// Of what comes after, the last so many bytes are kept; until the attempt ends they are in memory.
    pub tail_bytes: usize,
    /// A run's segment stops growing at about this size; later attempts keep only their last bytes.
    pub run_bytes: u64,
}

impl OutputLimits {
    /// What is kept where nobody says otherwise.
    pub const DEFAULT: Self = Self { head_bytes: 16 << 20, tail_bytes: 1 << 20, run_bytes: 1 << 30 };
}

/// Writes the output segment of one run.
#[derive(Debug)]
pub struct OutputWriter {
    sink: Sink,
    /// Chunks that are not in the file yet.
    buffer: Vec<u8>,
    /// How much of the file is written.
    written: u64,
    /// Whether there are bytes in the file that are not synced.
    unsynced: bool,
    full: bool,
    attempts: BTreeMap<(StepIndex, u32), Progress>,
    limits: OutputLimits,
}

#[derive(Debug)]
enum Sink {
    /// Made when the first byte comes.
    Absent(PathBuf),
    Open {
        path: PathBuf,
        file: File,
        is_new: bool,
    },
    Distrusted(PathBuf),
    /// For simulations: positions are counted, bytes are dropped.
    Nowhere,
}

#[derive(Debug)]
struct Progress {
    start: u64,
    end: u64,
    bytes: u64,
    head: u64,
    tail: VecDeque<u8>,
}

impl OutputWriter {
    /// A writer for the segment at `path`. An unfinished end of an existing one is cut off.
    pub fn open(path: &Path, limits: OutputLimits) -> Result<Self> {
        let mut writer = Self {
            sink: Sink::Absent(path.to_path_buf()),
            buffer: Vec::new(),
            written: 0,
            unsynced: false,
            full: false,
            attempts: BTreeMap::new(),
            limits,
        };
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(writer),
            Err(error) => return Err(StoreError::io("open", path)(error)),
        };
        let length = file.metadata().map_err(StoreError::io("look at", path))?.len();
        writer.written = good_end(&file, path, length)?;
        if writer.written < length {
            file.set_len(writer.written).map_err(StoreError::write(path))?;
            writer.unsynced = true;
        }
        writer.sink = Sink::Open { path: path.to_path_buf(), file, is_new: false };
        Ok(writer)
    }

    pub(crate) fn nowhere() -> Self {
        Self {
            sink: Sink::Nowhere,
            buffer: Vec::new(),
            written: 0,
            unsynced: false,
            full: false,
            attempts: BTreeMap::new(),
            limits: OutputLimits::DEFAULT,
        }
    }

    /// Adds what an attempt printed. It may stay in memory until [`OutputWriter::sync`].
    pub fn append(&mut self, step: StepIndex, attempt: u32, at: Time, bytes: &[u8]) -> Result<()> {
        let end = self.end();
        let room = if self.full { 0 } else { self.limits.run_bytes.saturating_sub(end) };
        let head_limit = self.limits.head_bytes;
        let progress = self.attempts.entry((step, attempt)).or_insert_with(|| Progress {
            start: end,
            end,
            bytes: 0,
            head: 0,
            tail: VecDeque::new(),
        });
        progress.bytes += bytes.len() as u64;
        // Once something is held back, everything later comes after it.
        let room = if progress.tail.is_empty() { room.min(head_limit - progress.head) } else { 0 };
        let (head, rest) = bytes.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len()));
        progress.head += head.len() as u64;
        if !rest.is_empty() {
            let kept = &rest[rest.len().saturating_sub(self.limits.tail_bytes)..];
            let surplus = (progress.tail.len() + kept.len()).saturating_sub(self.limits.tail_bytes);
            progress.tail.drain(..surplus.min(progress.tail.len()));
            progress.tail.extend(kept);
        }
        if !head.is_empty() {
            self.chunks(step, attempt, at, DATA, head);
            let end = self.end();
            if let Some(progress) = self.attempts.get_mut(&(step, attempt)) {
                progress.end = end;
            }
            if self.buffer.len() >= WRITE_BYTES {
                self.write()?;
            }
        }
        Ok(())
    }

    /// Ends an attempt's output and says where it stands. Only after [`OutputWriter::sync`] may an event say so.
    pub fn finish(&mut self, step: StepIndex, attempt: u32, at: Time) -> Output {
        let Some(mut progress) = self.attempts.remove(&(step, attempt)) else { return Output::None };
        let cut_bytes = progress.bytes - progress.head - progress.tail.len() as u64;
        if cut_bytes > 0 {
            self.chunks(step, attempt, at, CUT, &cut_bytes.to_le_bytes());
        }
        if !progress.tail.is_empty() {
            self.chunks(step, attempt, at, DATA, progress.tail.make_contiguous());
        }
        if cut_bytes > 0 || !progress.tail.is_empty() {
            progress.end = self.end();
        }
        Output::Segment { start: progress.start, end: progress.end, bytes: progress.bytes, cut_bytes }
    }

    /// Forgets an attempt whose output stands elsewhere.
    pub fn forget(&mut self, step: StepIndex, attempt: u32) {
        self.attempts.remove(&(step, attempt));
    }

    /// Writes what is gathered, so that another process can follow it, without a sync.
    pub fn flush(&mut self) -> Result<()> {
        self.write()
    }

    /// Makes everything durable that was appended and finished. It is cheap where there is nothing new.
    pub fn sync(&mut self) -> Result<()> {
        self.write()?;
        if !self.unsynced {
            return Ok(());
        }
        let Sink::Open { path, file, is_new } = &mut self.sink else { return Ok(()) };
        let mut outcome = file.sync_data();
        if *is_new && outcome.is_ok() {
            // The file's name and its folder's name are new too.
            outcome = path.ancestors().skip(1).take(2).try_for_each(filesystem::sync_folder);
            *is_new = outcome.is_err();
        }
        match outcome {
            Ok(()) => {
                self.unsynced = false;
                Ok(())
            }
            Err(error) => {
                // After a failed sync the system may call bytes clean that never reached the disk.
                let path = path.clone();
                self.sink = Sink::Distrusted(path.clone());
                Err(StoreError::WriteFailed { path, detail: error.to_string() })
            }
        }
    }

    /// Whether the disk was full at the last write. Until it is not, only the last bytes of each attempt are held.
    pub fn is_full(&self) -> bool {
        self.full
    }

    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn chunks(&mut self, step: StepIndex, attempt: u32, at: Time, kind: u8, bytes: &[u8]) {
        for bytes in bytes.chunks(MAX_CHUNK_BYTES) {
            let mut header = [0u8; HEADER_BYTES];
            header[..4].copy_from_slice(MAGIC);
            header[4] = kind;
            header[8..12].copy_from_slice(&step.0.to_le_bytes());
            header[12..16].copy_from_slice(&attempt.to_le_bytes());
            header[16..24].copy_from_slice(&at.0.to_le_bytes());
            header[24..28].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            header[28..32].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
            let check = crc32fast::hash(&header[..32]);
            header[32..].copy_from_slice(&check.to_le_bytes());
            if matches!(self.sink, Sink::Nowhere) {
                self.written += (HEADER_BYTES + bytes.len()) as u64;
            } else {
                self.buffer.extend_from_slice(&header);
                self.buffer.extend_from_slice(bytes);
            }
        }
    }

    fn write(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Sink::Absent(path) = &self.sink {
            let path = path.clone();
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
            let file = file.map_err(StoreError::write(&path))?;
            self.sink = Sink::Open { path, file, is_new: true };
        }
        let (path, file) = match &self.sink {
            Sink::Open { path, file, .. } => (path, file),
            Sink::Distrusted(path) => return Err(StoreError::Distrusted { path: path.clone() }),
            Sink::Absent(_) | Sink::Nowhere => return Ok(()),
        };
        match file.write_all_at(&self.buffer, self.written) {
            Ok(()) => {
                self.written += self.buffer.len() as u64;
                self.buffer.clear();
                self.buffer.shrink_to(WRITE_BYTES);
                self.unsynced = true;
                self.full = false;
                Ok(())
            }
            Err(error) => {
                let error = StoreError::write(path)(error);
                if let StoreError::DiskFull { .. } = error {
                    // The buffer is kept and written again from the same place when there is space.
                    self.full = true;
                } else {
                    self.sink = Sink::Distrusted(path.clone());
                }
                Err(error)
            }
        }
    }
}

/// A piece of output as it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// What was printed.
    Bytes(&'a [u8]),
    /// So many bytes were printed here and not kept, because of a size limit.
    Cut {
        /// How many.
        bytes: u64,
    },
    /// So many bytes of the segment cannot be read any more.
    Damaged {
        /// How many.
        bytes: u64,
    },
}

/// One chunk of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'a> {
    /// The step; `None` where damage hides it.
    pub step: Option<StepIndex>,
    /// The attempt.
    pub attempt: u32,
    /// When it was printed.
    pub at: Time,
    /// What it holds.
    pub piece: Piece<'a>,
}

/// Reads a segment chunk by chunk, also while it grows.
#[derive(Debug)]
pub struct SegmentReader {
    file: File,
    path: PathBuf,
    position: u64,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    step: StepIndex,
    attempt: u32,
    at: Time,
    length: usize,
    check: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let kind = bytes[4];
        let length = u32_at(24) as usize;
        let is_good = bytes.starts_with(MAGIC)
            && u32_at(32) == crc32fast::hash(&bytes[..32])
            && length <= MAX_CHUNK_BYTES
            && (kind == DATA || kind == CUT && length == 8);
        is_good.then(|| Header {
            kind,
            step: StepIndex(u32_at(8)),
            attempt: u32_at(12),
            at: Time(i64::from(u32_at(16)) | i64::from(u32_at(20)) << 32),
            length,
            check: u32_at(28),
        })
    }
}

impl SegmentReader {
    /// A reader from `position` (0, or where an event says that something begins); `None` where nothing was printed.
    pub fn open(path: &Path, position: u64) -> Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self { file, path: path.to_path_buf(), position, buffer: Vec::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("open", path)(error)),
        }
    }

    /// Where the next chunk begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next whole chunk; `None` where there is none yet. `wanted` chooses by step and attempt whose bytes are read.
    pub fn next(&mut self, wanted: impl Fn(StepIndex, u32) -> bool) -> Result<Option<Chunk<'_>>> {
        let length = self.file.metadata().map_err(StoreError::io("look at", &self.path))?.len();
        loop {
            let Some((header, start)) = next_header(&self.file, &self.path, self.position, length)? else {
                return Ok(None);
            };
            if start > self.position {
                let bytes = start - self.position;
                self.position = start;
                return Ok(Some(Chunk { step: None, attempt: 0, at: Time(0), piece: Piece::Damaged { bytes } }));
            }
            let data = start + HEADER_BYTES as u64;
            let end = data + header.length as u64;
            if end > length {
                return Ok(None);
            }
            self.position = end;
            if !wanted(header.step, header.attempt) {
                continue;
            }
            self.buffer.resize(header.length, 0);
            self.file.read_exact_at(&mut self.buffer, data).map_err(StoreError::io("read", &self.path))?;
            let piece = if crc32fast::hash(&self.buffer) != header.check {
                Piece::Damaged { bytes: header.length as u64 }
            } else if header.kind == CUT {
                Piece::Cut { bytes: self.buffer.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)) }
            } else {
                Piece::Bytes(&self.buffer)
            };
            let Header { step, attempt, at, .. } = header;
            return Ok(Some(Chunk { step: Some(step), attempt, at, piece }));
        }
    }
}

/// The first good header from `position` on, and where it is.
fn next_header(file: &File, path: &Path, position: u64, length: u64) -> Result<Option<(Header, u64)>> {
    const WINDOW: usize = 1 << 16;
    let read = |bytes: &mut [u8], at: u64| file.read_exact_at(bytes, at).map_err(StoreError::io("read", path));
    if position + HEADER_BYTES as u64 > length {
        return Ok(None);
    }
    let mut bytes = [0u8; HEADER_BYTES];
    read(&mut bytes, position)?;
    if let Some(header) = Header::parse(&bytes) {
        return Ok(Some((header, position)));
    }
    // Damage: look for the next place that is a header beyond doubt.
    let mut window = vec![0u8; WINDOW];
    let mut at = position + 1;
    while at + HEADER_BYTES as u64 <= length {
        let size = usize::try_from(length - at).unwrap_or(WINDOW).min(WINDOW);
        read(&mut window[..size], at)?;
        for offset in 0..=size - HEADER_BYTES {
            if window[offset..].starts_with(MAGIC) {
                bytes.copy_from_slice(&window[offset..offset + HEADER_BYTES]);
                if let Some(header) = Header::parse(&bytes) {
                    return Ok(Some((header, at + offset as u64)));
                }
            }
        }
        at += (size - HEADER_BYTES + 1) as u64;
    }
    Ok(None)
}

/// Where the last whole chunk ends.
fn good_end(file: &File, path: &Path, length: u64) -> Result<u64> {
    let (mut position, mut last) = (0, None);
    while let Some((header, start)) = next_header(file, path, position, length)? {
        let end = start + (HEADER_BYTES + header.length) as u64;
        if end > length {
            break;
        }
        last = Some((header, start, end));
        position = end;
    }
    let Some((header, start, end)) = last else { return Ok(0) };
    let mut bytes = vec![0; header.length];
    file.read_exact_at(&mut bytes, start + HEADER_BYTES as u64).map_err(StoreError::io("read", path))?;
    // Before an event refers to a chunk it is synced, so a last chunk that is damaged can only be an unfinished one.
    Ok(if crc32fast::hash(&bytes) == header.check { end } else { start })
}

/// The stretches of a segment that events refer to, joined where they touch.
#[derive(Default)]
pub(crate) struct Stretches(BTreeMap<u64, u64>);

impl Stretches {
    /// Adds one.
    pub(crate) fn add(&mut self, mut start: u64, mut end: u64) {
        while let Some((&from, &to)) = self.0.range(..=end).next_back().filter(|(_, to)| **to >= start) {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }
}

/// Reads of a segment what events refer to, and says what is wrong with it. What stands between was never
/// acknowledged: a power failure may have left anything there.
pub(crate) fn verify(path: &Path, stretches: &Stretches) -> Result<Option<String>> {
    let (mut places, mut lost, mut first) = (0u64, 0u64, None);
    for (&start, &end) in &stretches.0 {
        let Some(mut reader) = SegmentReader::open(path, start)? else {
            return Ok(Some(format!("it is missing, and events refer to {} bytes of it", end - start)));
        };
        while reader.position < end {
            let at = reader.position;
            lost += match reader.next(|_, _| true)?.map(|chunk| chunk.piece) {
                Some(Piece::Bytes(_) | Piece::Cut { .. }) => continue,
                Some(Piece::Damaged { bytes }) => bytes.min(end - at),
                None => {
                    reader.position = end;
                    end - at
                }
            };
            places += 1;
            first.get_or_insert(at);
        }
    }
    let place = if places == 1 { "place" } else { "places" };
    Ok(first.map(|first| format!("{lost} bytes of it cannot be read, in {places} {place}, the first at byte {first}")))
}

/// Hands the output of one attempt to `each`, wherever it stands.
pub(crate) fn read(
    path: &Path,
    step: StepIndex,
    attempt: u32,
    output: &Output,
    each: &mut dyn FnMut(Piece<'_>) -> Result<()>,
) -> Result<()> {
    match output {
        Output::None => Ok(()),
        Output::Inline(bytes) => each(Piece::Bytes(bytes)),
        Output::Segment { start, end, .. } => {
            let Some(mut reader) = SegmentReader::open(path, *start)? else {
                return each(Piece::Damaged { bytes: end - start });
            };
            while reader.position < *end {
                let Some(chunk) = reader.next(|of, number| of == step && number == attempt)? else { break };
                each(chunk.piece)?;
            }
            match end.saturating_sub(reader.position) {
                0 => Ok(()),
                bytes => each(Piece::Damaged { bytes }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StepIndex = StepIndex(0);
    const B: StepIndex = StepIndex(1);

    #[test]
    fn only_what_events_refer_to_can_be_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("output");
        let mut ends = Vec::new();
        let mut write = |bytes: &[u8]| {
            let mut writer = OutputWriter::open(&path, OutputLimits::DEFAULT).expect("the segment opens");
            writer.append(A, 1, Time(1), bytes).expect("it takes bytes");
            writer.flush().expect("they are written");
            ends.push(std::fs::metadata(&path).expect("there is a file").len());
        };
        write(&[b'a'; 100]);
        // A power failure leaves some of what was never synced.
        write(&[b'b'; 100]);
        write(&[b'c'; 100]);
        let file = OpenOptions::new().write(true).open(&path).expect("the file opens");
        file.write_all_at(&[0; 20], ends[0] + 5).expect("it takes bytes");
        let mut stretches = Stretches::default();
        stretches.add(ends[1], ends[2]);
        stretches.add(0, ends[0]);
        assert_eq!(verify(&path, &stretches).expect("it can be read"), None);
        stretches.add(10, ends[1]);
        let problem = verify(&path, &stretches).expect("it can be read").expect("something is wrong");
        assert_eq!(problem, format!("136 bytes of it cannot be read, in 1 place, the first at byte {}", ends[0]));
    }

    fn small() -> OutputLimits {
        OutputLimits { head_bytes: 10, tail_bytes: 4, run_bytes: 1 << 20 }
    }

    fn text(path: &Path, step: StepIndex, output: &Output) -> String {
        let mut text = String::new();
        let mut each = |piece: Piece<'_>| {
            match piece {
                Piece::Bytes(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
                Piece::Cut { bytes } => text.push_str(&format!("<{bytes} cut>")),
                Piece::Damaged { .. } => text.push_str("<damaged>"),
            }
            Ok(())
        };
        read(path, step, 1, output, &mut each).unwrap();
        text
    }

    #[test]
    fn attempts_that_print_at_the_same_time_are_read_apart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("1/output");
        let mut writer = OutputWriter::open(&path, OutputLimits::DEFAULT).unwrap();
        for (step, bytes) in [(A, "one "), (B, "eins "), (A, "two"), (B, "zwei")] {
            writer.append(step, 1, Time(5), bytes.as_bytes()).unwrap();
        }
        let (a, b) = (writer.finish(A, 1, Time(6)), writer.finish(B, 1, Time(6)));
        writer.sync().unwrap();
        assert_eq!(text(&path, A, &a), "one two");
        assert_eq!(text(&path, B, &b), "eins zwei");
        assert_eq!(text(&path, A, &Output::Inline(b"one two".to_vec())), "one two");
        let Output::Segment { bytes, cut_bytes, .. } = a else { panic!("{a:?}") };
        assert_eq!((bytes, cut_bytes), (7, 0));
    }

    #[test]
    fn too_much_output_keeps_its_beginning_and_its_end_and_says_what_is_missing() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("1/output");
        let mut writer = OutputWriter::open(&path, small()).unwrap();
        for byte in b"0123456789abcdefghijklmnopqrstuvwxyz".chunks(7) {
            writer.append(A, 1, Time(0), byte).unwrap();
        }
        let output = writer.finish(A, 1, Time(0));
        writer.sync().unwrap();
        assert_eq!(text(&path, A, &output), "0123456789<22 cut>wxyz");
        let Output::Segment { bytes, cut_bytes, .. } = output else { panic!("{output:?}") };
        assert_eq!((bytes, cut_bytes), (36, 22));
    }

    #[test]
    fn a_gibibyte_needs_no_more_memory_than_the_limits_say() {
        let mut writer = OutputWriter::nowhere();
        let block = vec![b'x'; 1 << 20];
        for _ in 0..1024 {
            writer.append(A, 1, Time(0), &block).unwrap();
        }
        let held = writer.attempts[&(A, 1)].tail.capacity() + writer.buffer.capacity();
        assert!(held <= 4 << 20, "{held} bytes are held");
        let limits = OutputLimits::DEFAULT;
        let Output::Segment { bytes, cut_bytes, .. } = writer.finish(A, 1, Time(0)) else { panic!() };
        assert_eq!(bytes, 1 << 30);
        assert_eq!(cut_bytes, (1 << 30) - limits.head_bytes - limits.tail_bytes as u64);
    }

    #[test]
    fn a_run_that_has_printed_too_much_still_keeps_the_last_bytes_of_each_attempt() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("1/output");
        let limits = OutputLimits { run_bytes: 40, ..small() };
        let mut writer = OutputWriter::open(&path, limits).unwrap();
        writer.append(A, 1, Time(0), b"abcdefgh").unwrap();
        let a = writer.finish(A, 1, Time(0));
        writer.append(B, 1, Time(0), b"abcdefgh").unwrap();
        let b = writer.finish(B, 1, Time(0));
        writer.sync().unwrap();
        assert_eq!(text(&path, A, &a), "abcd<0 cut>efgh".replace("<0 cut>", ""));
        assert_eq!(text(&path, B, &b), "<4 cut>efgh");
    }

    #[test]
    fn an_unfinished_end_is_not_read_and_is_cut_off_by_the_next_writer() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("1/output");
        let mut writer = OutputWriter::open(&path, OutputLimits::DEFAULT).unwrap();
        writer.append(A, 1, Time(0), b"whole").unwrap();
        let whole = writer.finish(A, 1, Time(0));
        writer.sync().unwrap();
        let good = std::fs::read(&path).unwrap();
        writer.append(B, 1, Time(0), b"torn").unwrap();
        writer.sync().unwrap();
        let all = std::fs::read(&path).unwrap();
        for length in good.len()..all.len() {
            std::fs::write(&path, &all[..length]).unwrap();
            let mut reader = SegmentReader::open(&path, good.len() as u64).unwrap().unwrap();
            assert!(reader.next(|_, _| true).unwrap().is_none(), "cut at {length}");
            let mut writer = OutputWriter::open(&path, OutputLimits::DEFAULT).unwrap();
            writer.append(B, 1, Time(0), b"again").unwrap();
            let again = writer.finish(B, 1, Time(0));
            writer.sync().unwrap();
            assert_eq!(text(&path, A, &whole), "whole");
            assert_eq!(text(&path, B, &again), "again");
        }
    }

    #[test]
    fn every_flipped_byte_is_reported_and_hides_only_its_own_chunk() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("1/output");
        let mut writer = OutputWriter::open(&path, OutputLimits::DEFAULT).unwrap();
        writer.append(A, 1, Time(0), b"first ").unwrap();
        let middle = writer.end() as usize;
        writer.append(A, 1, Time(0), b"second ").unwrap();
        let last = writer.end() as usize;
        writer.append(A, 1, Time(0), b"third").unwrap();
        let output = writer.finish(A, 1, Time(0));
        writer.sync().unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in middle..last {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(text(&path, A, &output), "first <damaged>third", "byte {at}");
        }
    }

    #[test]
    fn a_follower_sees_each_chunk_when_it_is_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("1/output");
        let mut writer = OutputWriter::open(&path, OutputLimits::DEFAULT).unwrap();
        assert!(SegmentReader::open(&path, 0).unwrap().is_none());
        writer.append(A, 1, Time(1), b"one").unwrap();
        writer.flush().unwrap();
        let mut reader = SegmentReader::open(&path, 0).unwrap().unwrap();
        assert_eq!(reader.next(|_, _| true).unwrap().map(|chunk| chunk.piece), Some(Piece::Bytes(b"one")));
        assert!(reader.next(|_, _| true).unwrap().is_none());
        writer.append(B, 2, Time(2), b"two").unwrap();
        writer.flush().unwrap();
        let chunk = reader.next(|_, _| true).unwrap().unwrap();
        assert_eq!((chunk.step, chunk.attempt, chunk.at), (Some(B), 2, Time(2)));
        assert_eq!(chunk.piece, Piece::Bytes(b"two"));
    }
}
