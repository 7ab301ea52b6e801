//! Texts for people: sizes, times, and what comes from outside. Pure.

use std::borrow::Cow;
use std::time::Duration;

/// The text with everything that could steer a terminal, break a line or hide
/// what follows written as an escape.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters, line separators, and what reorders or joins text
/// invisibly.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A size in bytes as people say it, in powers of 1000: `512 B`, `29.5 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // In tenths of the unit, rounded once.
    let mut tenths = bytes.saturating_add(50) / 100;
    let mut unit = 0;
    let mut factor: u64 = 1000;
    while tenths >= 10_000 && unit + 1 < units.len() {
        unit += 1;
        factor = factor.saturating_mul(1000);
        tenths = (u128::from(bytes) * 10 + u128::from(factor) / 2).div_euclid(factor.into()) as u64;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
}

/// A rate as people say it.
#[must_use]
pub fn rate(bytes: u64, time: Duration) -> String {
    let nanoseconds = time.as_nanos().max(1);
    let rate = u128::from(bytes) * 1_000_000_000 / nanoseconds;
    format!("{}/s", size(u64::try_from(rate).unwrap_or(u64::MAX)))
}

/// A time as people say it: `0.4 s`, `12 s`, `3 min 5 s`.
#[must_use]
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Whole seconds as people say them: `12 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn seconds(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_steers_is_escaped_and_the_rest_is_kept() {
        assert_eq!(escape("plain “ünï” 漢字"), "plain “ünï” 漢字");
        assert_eq!(
            escape("a\nb\t\x1b[31m\u{9b}\x7f"),
            "a\\nb\\t\\u{1b}[31m\\u{9b}\\u{7f}"
        );
        assert_eq!(escape("x\u{202e}y\u{2028}"), "x\\u{202e}y\\u{2028}");
    }

    #[test]
    fn sizes_are_rounded_once() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (29_534_567, "29.5 MB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_000_000, "1.0 MB"),
            (5_000_000_000, "5.0 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn rates_and_times() {
        assert_eq!(rate(10_000_000, Duration::from_secs(4)), "2.5 MB/s");
        assert_eq!(rate(u64::MAX, Duration::ZERO), "18.4 EB/s");
        assert_eq!(time(Duration::from_millis(440)), "0.4 s");
        assert_eq!(time(Duration::from_secs(59)), "59 s");
        assert_eq!(time(Duration::from_secs(185)), "3 min 5 s");
        let said = [0, 60, 3661, 90_000].map(seconds);
        assert_eq!(said, ["0 s", "1 min 0 s", "1 h 1 min", "1 d 1 h"]);
    }

    proptest! {
        #[test]
        fn an_escaped_text_is_one_inert_line(text: String) {
            prop_assert!(!escape(&text).contains(steers));
        }

        #[test]
        fn a_size_has_at_most_four_digits(bytes: u64) {
            prop_assert!(size(bytes).chars().filter(char::is_ascii_digit).count() <= 4, "{}", size(bytes));
        }
    }
}
