//! `events.jsonl`: the events of each run as JSON lines, written after they are committed and completed when a
//! run changes hands. It is an export; the truth is in the database.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use baton_core::{RunId, Time};

use crate::chain::Row;
use crate::directory::make_folder;
use crate::{DataDir, Result, StoreError};

/// Files held open at once; beyond that they are opened again when they are needed.
const OPEN_FILES: usize = 128;

/// Lines that wait are written at the latest when there are this many bytes of them.
pub(crate) const PENDING_BYTES: usize = 1 << 20;

/// Lines that are committed and not yet in their files.
#[derive(Debug)]
pub(crate) struct Exporter {
    directory: DataDir,
    lines: Vec<u8>,
    /// Which run's lines end where in `lines`.
    stretches: Vec<(u64, usize)>,
    files: BTreeMap<u64, File>,
    stamp: Stamp,
}

impl Exporter {
    pub(crate) fn new(directory: DataDir) -> Self {
        Self { directory, lines: Vec::new(), stretches: Vec::new(), files: BTreeMap::new(), stamp: Stamp::default() }
    }

    /// What waits now, for [`Exporter::rewind`].
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.lines.len(), self.stretches.len())
    }

    /// Forgets what was added since the mark: it was not committed.
    pub(crate) fn rewind(&mut self, mark: (usize, usize)) {
        self.lines.truncate(mark.0);
        self.stretches.truncate(mark.1);
    }

    pub(crate) fn push(&mut self, row: &Row<'_>) {
        self.stamp.line(row, &mut self.lines);
        match self.stretches.last_mut() {
            Some((log, end)) if *log == row.log => *end = self.lines.len(),
            _ => self.stretches.push((row.log, self.lines.len())),
        }
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.lines.len()
    }

    /// Writes what waits. What could not be written is completed when the run changes hands.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let mut start = 0;
        let mut outcome = Ok(());
        for (log, end) in std::mem::take(&mut self.stretches) {
            let lines = start..end;
            start = end;
            if outcome.is_ok() {
                outcome = self.write(log, lines);
            }
        }
        self.lines.clear();
        self.lines.shrink_to(PENDING_BYTES);
        outcome
    }

    fn write(&mut self, log: u64, lines: std::ops::Range<usize>) -> Result<()> {
        let path = self.directory.export(RunId(log));
        let mut known = self.files.get(&log);
        if known.is_none() {
            if self.files.len() >= OPEN_FILES {
                self.files.pop_first();
            }
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o600);
            let file = match options.open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    make_folder(&self.directory.run(RunId(log)))?;
                    options.open(&path)
                }
                other => other,
            };
            self.files.insert(log, file.map_err(StoreError::io("open", &path))?);
            known = self.files.get(&log);
        }
        let Some(mut file) = known else { return Ok(()) };
        file.write_all(&self.lines[lines]).map_err(StoreError::io("write", &path))
    }

    /// Gives up the open file of a run, because it ended or is about to change.
    pub(crate) fn close(&mut self, log: u64) {
        self.files.remove(&log);
    }

    /// Cuts the file of a run after its last good line, and answers with that line's number.
    pub(crate) fn last_good(&mut self, log: u64) -> Result<u64> {
        self.close(log);
        let path = self.directory.export(RunId(log));
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        let length = file.metadata().map_err(StoreError::io("look at", &path))?.len();
        let mut reader = BufReader::new(&file);
        let (mut seq, mut good, mut line) = (0u64, 0u64, Vec::new());
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(StoreError::io("read", &path))?;
            let start = format!("{{\"seq\":{},", seq + 1);
            let is_next = line.starts_with(start.as_bytes()) && line.ends_with(b"}\n");
            // After a power failure a block in the middle of a line may be missing.
            if !is_next || serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_err() {
                break;
            }
            seq += 1;
            good += bytes as u64;
        }
        if good < length {
            file.set_len(good).map_err(StoreError::io("shorten", &path))?;
        }
        Ok(seq)
    }

    /// Empties the file of a run.
    pub(crate) fn restart(&mut self, log: u64) -> Result<()> {
        self.close(log);
        let path = self.directory.export(RunId(log));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

/// No line of an export is longer, as far as looking for its beginning goes: a longer one tells nothing.
const TAIL_BYTES: u64 = 256 << 10;

/// The number in the last whole line of an export; nothing where there is none.
pub(crate) fn last_number(path: &Path) -> Result<Option<u64>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let failed = |error| StoreError::io("read", path)(error);
    let length = file.metadata().map_err(failed)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).map_err(failed)?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(failed)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &tail[..end]);
    let line = whole.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let number = line.strip_prefix(b"{\"seq\":").and_then(|rest| rest.split(|byte| *byte == b',').next());
    Ok(number.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok()))
}

/// Writes lines, and remembers the last time it wrote as text: many events have the same one.
#[derive(Debug, Default)]
struct Stamp {
    at: Option<i64>,
    text: String,
}

impl Stamp {
    fn line(&mut self, row: &Row<'_>, out: &mut Vec<u8>) {
        if self.at != Some(row.at) {
            self.at = Some(row.at);
            self.text = rfc3339(Time(row.at));
        }
        // Writing to memory does not fail, and our kinds need no escapes; a step's path may.
        let _ =
            write!(out, "{{\"seq\":{},\"at\":\"{}\",\"run\":{},\"kind\":\"{}\"", row.seq, self.text, row.log, row.kind);
        if let Some(step) = row.step {
            out.extend_from_slice(b",\"step\":");
            let _ = serde_json::to_writer(&mut *out, step);
        }
        if let Some(attempt) = row.attempt {
            let _ = write!(out, ",\"attempt\":{attempt}");
        }
        if row.payload.len() > 2 {
            out.push(b',');
            out.extend_from_slice(&row.payload[1..]);
        } else {
            out.push(b'}');
        }
        out.push(b'\n');
    }
}

/// The time as RFC 3339 in UTC with milliseconds, such as `2026-11-20T13:24:04.007Z`.
pub fn rfc3339(time: Time) -> String {
    let (days, millis) = (time.0.div_euclid(86_400_000), time.0.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date so many days after 1970-01-01. Counted in years that begin in March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_and_programs_read_them() {
        assert_eq!(rfc3339(Time(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Time(951_782_400_001)), "2000-02-29T00:00:00.001Z");
        assert_eq!(rfc3339(Time(1_795_181_044_007)), "2026-11-20T13:24:04.007Z");
        assert_eq!(rfc3339(Time(-1)), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_torn_or_damaged_end_is_cut_off_and_the_last_good_line_is_known() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = DataDir::at(scratch.path());
        directory.create().unwrap();
        let mut exporter = Exporter::new(directory.clone());
        let row = |seq| Row { log: 3, seq, at: 0, kind: "run_started", step: None, attempt: None, payload: b"{}" };
        exporter.push(&row(1));
        exporter.push(&row(2));
        exporter.flush().unwrap();
        let path = directory.export(RunId(3));
        let good = std::fs::read(&path).unwrap();
        for damage in
            [&b""[..], b"{\"seq\":3,\"at\"", b"\0\0\0\0", b"{\"seq\":9,\"at\":1}\n", b"{\"seq\":3,\"at\":\0\0}\n"]
        {
            std::fs::write(&path, [&good[..], damage].concat()).unwrap();
            assert_eq!(exporter.last_good(3).unwrap(), 2);
            assert_eq!(std::fs::read(&path).unwrap(), good);
        }
    }
}
