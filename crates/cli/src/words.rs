//! Numbers, durations and times as people read them.

use baton_core::{Millis, Time};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration: `4ms`, `0.3s`, `12.3s`, `2m 05s`, `1h 02m`, `3d 4h`.
pub fn duration(Millis(ms): Millis) -> String {
    if ms < SECOND / 10 {
        format!("{ms}ms")
    } else if ms < MINUTE {
        // Tenths, cut and not rounded: a minute is never shown as 60.0s.
        format!("{}.{}s", ms / SECOND, ms % SECOND / 100)
    } else if ms < HOUR {
        format!("{}m {:02}s", ms / MINUTE, ms % MINUTE / SECOND)
    } else if ms < DAY {
        format!("{}h {:02}m", ms / HOUR, ms % HOUR / MINUTE)
    } else {
        format!("{}d {}h", ms / DAY, ms % DAY / HOUR)
    }
}

/// How long ago something was: `just now`, `40 s ago`, `3 min ago`, `5 h ago`, `2 days ago`.
pub fn ago(Millis(ms): Millis) -> String {
    if ms < SECOND {
        "just now".to_owned()
    } else if ms < MINUTE {
        format!("{} s ago", ms / SECOND)
    } else if ms < HOUR {
        format!("{} min ago", ms / MINUTE)
    } else if ms < DAY {
        format!("{} h ago", ms / HOUR)
    } else if ms < 2 * DAY {
        "1 day ago".to_owned()
    } else {
        format!("{} days ago", ms / DAY)
    }
}

/// A point in time for tables, in UTC: `2026-01-31 09:05:00Z`.
pub fn clock(time: Time) -> String {
    let text = baton_store::rfc3339(time);
    format!("{} {}Z", &text[..10], &text[11..19])
}

/// `1 step`, `2 steps`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// A number with its thousands apart: `100,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size: `812 B`, `4.0 KiB`, `1.2 GiB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut value = size as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A table with its columns aligned: the first row is the head; the last column is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            widths[at] = widths[at].max(crate::escape::width(cell));
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if at + 1 < row.len() {
                let pad = widths[at] - crate::escape::width(cell) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_at_every_size() {
        let shown: Vec<String> = [0, 99, 1234, 59_999, 60_000, 125_000, 3_600_000, 7_380_000, 100 * HOUR]
            .map(|ms| duration(Millis(ms)))
            .into();
        assert_eq!(shown, ["0ms", "99ms", "1.2s", "59.9s", "1m 00s", "2m 05s", "1h 00m", "2h 03m", "4d 4h"]);
    }

    #[test]
    fn the_past_reads_well_at_every_distance() {
        let shown: Vec<String> = [5, 40_000, 200_000, 5 * HOUR, DAY, 9 * DAY].map(|ms| ago(Millis(ms))).into();
        assert_eq!(shown, ["just now", "40 s ago", "3 min ago", "5 h ago", "1 day ago", "9 days ago"]);
    }

    #[test]
    fn points_in_time_fit_a_table() {
        assert_eq!(clock(Time(951_782_400_000)), "2000-02-29 00:00:00Z");
    }

    #[test]
    fn numbers_and_sizes_are_grouped() {
        assert_eq!([grouped(7), grouped(1000), grouped(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([bytes(812), bytes(4096), bytes(1_300_000_000)], ["812 B", "4.0 KiB", "1.2 GiB"]);
        assert_eq!(counted(1, "step", "steps"), "1 step");
    }

    #[test]
    fn columns_line_up_by_what_a_terminal_shows() {
        let rows = [["id", "plan"], ["1", "日本"], ["12", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "id  plan\n1   日本\n12  x\n");
    }
}
