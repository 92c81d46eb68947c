//! Sizes, durations and moments as people read them.

use std::time::Duration;

use jiff::Timestamp;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// A number of bytes with one decimal: `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut left = bytes;
    let mut rest = 0;
    while left >= 1024 && unit + 1 < UNITS.len() {
        rest = left % 1024;
        left /= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    let mut tenths = left * 10 + (rest * 10 + 512) / 1024;
    // 1023.96 KiB is shown as 1.0 MiB, not as 1024.0 KiB.
    if tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = 10;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A rate in bytes a second.
pub(crate) fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", size(bytes_per_second))
}

/// A duration in its two largest units: `2 h 05 min`, `1 min 20 s`, `3.4 s`, `120 ms`.
pub(crate) fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", s, ms % 1000 / 100),
        60..3_600 => format!("{} min {:02} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {:02} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// A moment to the second, in UTC: `2026-11-22 14:03:07 UTC`.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A moment given as RFC 3339, as [`moment`] tells it; anything else as it stands.
pub(crate) fn moment_text(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_round_up_cleanly() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (32 << 20, "32.0 MiB"),
            (5_000_000_000, "4.7 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(rate(2 << 20), "2.0 MiB/s");
    }

    #[test]
    fn durations_have_two_units() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (3_450, "3.4 s"),
            (80_000, "1 min 20 s"),
            (7_500_000, "2 h 05 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn moments_are_told_to_the_second() {
        assert_eq!(moment(Timestamp::UNIX_EPOCH), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment_text("2026-11-22T15:03:07+01:00"), "2026-11-22 14:03:07 UTC");
        assert_eq!(moment_text("noon"), "noon");
    }
}
