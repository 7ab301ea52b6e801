//! Texts with a unit: durations and sizes. Pure.

use std::time::Duration;

/// What a number's unit stands for, smallest first.
const TIMES: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Reads a duration: numbers with the units ns, us, ms, s, m, h and d, added up
/// (`1h30m`, `1.5h`).
///
/// # Errors
///
/// One line about the text, which it quotes.
pub fn duration(text: &str) -> Result<Duration, String> {
    let quoted = super::quote(text);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!(
            "{quoted} has no unit; write {}s",
            super::shorten(text)
        ));
    }
    let malformed = || format!("{quoted} is not a duration; write one such as 60s, 5m or 1h30m");
    let too_long = || format!("{quoted} is too long");
    let mut rest = text;
    let mut nanoseconds: u64 = 0;
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let (number, after) = split(rest, |b| b.is_ascii_digit() || b == b'.');
        let (unit, after) = split(after, |b| !b.is_ascii_digit() && b != b'.');
        rest = after;
        let Some((_, factor)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            return Err(if number.is_empty() || unit.is_empty() {
                malformed()
            } else {
                format!(
                    "{quoted} has the unknown unit {}; write ms, s, m, h or d",
                    super::quote(unit)
                )
            });
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(malformed());
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| too_long())?
        };
        let part = whole
            .checked_mul(*factor)
            .and_then(|n| n.checked_add(of(fraction, *factor)));
        nanoseconds = part
            .and_then(|n| nanoseconds.checked_add(n))
            .ok_or_else(too_long)?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The decimal fraction `0.digits` of `factor`, rounded down.
fn of(digits: &str, factor: u64) -> u64 {
    let mut sum = 0u64;
    let mut place = factor;
    for digit in digits.bytes() {
        place /= 10;
        sum += u64::from(digit - b'0') * place;
    }
    sum
}

fn split(text: &str, inside: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|b| !inside(b)).unwrap_or(text.len());
    text.split_at(end)
}

/// Reads a size in bytes: a whole number with the unit k, m, g or t, powers of
/// 1024, in either case, optionally followed by `b` or `ib` (`512m`, `2G`,
/// `16GiB`).
///
/// # Errors
///
/// One line about the text, which it quotes.
pub fn size(text: &str) -> Result<u64, String> {
    let quoted = super::quote(text);
    let (number, unit) = split(text, |b| b.is_ascii_digit());
    let unit = unit.to_ascii_lowercase();
    let letter = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match letter {
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "" if unit.is_empty() && !number.is_empty() => {
            return Err(format!("{quoted} has no unit; write k, m, g or t after it"));
        }
        _ => {
            return Err(format!(
                "{quoted} is not a size; write one such as 512m or 2g"
            ));
        }
    };
    if number.is_empty() {
        return Err(format!(
            "{quoted} is not a size; write one such as 512m or 2g"
        ));
    }
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| format!("{quoted} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_add_up() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("60s", ms(60_000)),
            ("250ms", ms(250)),
            ("1h30m", ms(5_400_000)),
            ("1.5h", ms(5_400_000)),
            (".5s", ms(500)),
            ("2d", ms(172_800_000)),
            ("0s", ms(0)),
            ("0", ms(0)),
            ("1m1m", ms(120_000)),
            ("3us", Duration::from_micros(3)),
            ("3µs", Duration::from_micros(3)),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_wrong_duration_says_what_to_write() {
        let malformed =
            |t: &str| format!("{t:?} is not a duration; write one such as 60s, 5m or 1h30m");
        for (text, expected) in [
            ("60", r#""60" has no unit; write 60s"#.to_owned()),
            (
                "5 minutes",
                r#""5 minutes" has the unknown unit " minutes"; write ms, s, m, h or d"#.into(),
            ),
            (
                "1w",
                r#""1w" has the unknown unit "w"; write ms, s, m, h or d"#.into(),
            ),
            ("", malformed("")),
            ("soon", malformed("soon")),
            ("-5s", malformed("-5s")),
            ("1h30", malformed("1h30")),
            ("1.2.3s", malformed("1.2.3s")),
            (".s", malformed(".s")),
            ("99999999999d", r#""99999999999d" is too long"#.into()),
            (
                "99999999999999999999999s",
                r#""99999999999999999999999s" is too long"#.into(),
            ),
        ] {
            assert_eq!(duration(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [
            ("2g", 2 << 30),
            ("512M", 512 << 20),
            ("1T", 1 << 40),
            ("64KiB", 64 << 10),
            ("1kb", 1024),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "g",
            "2",
            "2x",
            "-1g",
            "1.5g",
            "2 g",
            "b",
            "2b",
            "99999999999999t",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = (duration(&text), size(&text));
        }

        #[test]
        fn sums_are_what_their_parts_are(h in 0u64..1000, m in 0u64..1000, s in 0u64..1000) {
            let expected = Duration::from_secs(h * 3600 + m * 60 + s);
            prop_assert_eq!(duration(&format!("{h}h{m}m{s}s")), Ok(expected));
        }
    }
}
