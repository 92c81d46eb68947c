//! The kinds of values a setting can have, and how each is read from text: in the file, the
//! environment and flags alike.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;

/// What a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Path,
    /// `scheme://…` with one of these schemes, without credentials in it.
    Url(&'static [&'static str]),
    /// A whole number within bounds, both included.
    Integer(u64, u64),
    /// Bytes: `512KiB`, `32MiB`, `1GiB`, or a bare number of bytes; bounds included.
    Size(u64, u64),
    /// `500ms`, `30s`, `10min`, `2h`, `7d`.
    Duration,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A text that is masked wherever it is shown.
    Secret,
}

/// A setting's value.
#[derive(Clone)]
pub(crate) enum Value {
    Text(String),
    Path(PathBuf),
    Integer(u64),
    Size(u64),
    Duration(Duration),
    Secret(Secret),
}

impl Kind {
    /// Reads a value; the error says what would have been accepted.
    pub(crate) fn parse(self, text: &str) -> Result<Value, String> {
        if text.is_empty() {
            return Err("the value is empty".to_owned());
        }
        match self {
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::Path => Ok(Value::Path(PathBuf::from(text))),
            Self::Url(schemes) => url(text, schemes).map(Value::Text),
            Self::Integer(low, high) => integer(text, low, high).map(Value::Integer),
            Self::Size(low, high) => {
                let bytes = parse_size(text)?;
                if (low..=high).contains(&bytes) {
                    return Ok(Value::Size(bytes));
                }
                Err(format!("{text} is not within {} and {}", show_size(low), show_size(high)))
            }
            Self::Duration => parse_timeout(text).map(Value::Duration),
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(words) => Err(format!("\"{text}\" is none of {}", alternatives(words))),
            Self::Secret => Ok(Value::Secret(Secret::new(text.to_owned()))),
        }
    }

    /// How the documentation names what is accepted.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Url(schemes) => {
                let forms: Vec<String> = schemes.iter().map(|s| format!("`{s}://…`")).collect();
                forms.join(" or ")
            }
            Self::Integer(low, u64::MAX) => format!("integer from {low}"),
            Self::Integer(low, high) => format!("integer {low}–{high}"),
            Self::Size(low, high) => format!("size {}–{}", show_size(low), show_size(high)),
            Self::Duration => "duration".to_owned(),
            Self::Choice(words) => alternatives(words),
            Self::Secret => "secret text".to_owned(),
        }
    }
}

impl Value {
    /// The value as the configuration file would spell it, unquoted; secrets are masked.
    pub(crate) fn show(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Path(path) => path.display().to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Size(bytes) => show_size(*bytes),
            Self::Duration(duration) => show_duration(*duration),
            Self::Secret(_) => "********".to_owned(),
        }
    }
}

fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    quoted.join(", ")
}

fn url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let expected = || schemes.iter().map(|s| format!("{s}://…")).collect::<Vec<_>>().join(" or ");
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("\"{text}\" is no URL; expected {}", expected()));
    };
    if !schemes.contains(&scheme) {
        return Err(format!("the scheme \"{scheme}\" is not known; expected {}", expected()));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        // The text is not repeated: it may hold a password.
        return Err("a URL must not hold credentials; give them by their own settings".to_owned());
    }
    if rest.trim_matches('/').is_empty() || (scheme == "file" && !rest.starts_with('/')) {
        let form = if scheme == "file" { "file:///absolute/path" } else { "a name after ://" };
        return Err(format!("\"{text}\" is not complete; expected {form}"));
    }
    Ok(text.to_owned())
}

fn integer(text: &str, low: u64, high: u64) -> Result<u64, String> {
    let number: u64 = text.parse().map_err(|_| format!("\"{text}\" is no whole number"))?;
    if (low..=high).contains(&number) {
        return Ok(number);
    }
    Err(match high {
        u64::MAX => format!("{number} is below {low}"),
        _ => format!("{number} is not within {low} and {high}"),
    })
}

const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a number of bytes such as `32MiB`, `512 KiB` or `4096`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text)?;
    let factor = match unit {
        "" => 1,
        unit => SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(|| format!("\"{unit}\" is no unit of size; use KiB, MiB, GiB or TiB"))?,
    };
    number.checked_mul(factor).ok_or_else(|| format!("\"{text}\" is too large"))
}

/// The shortest exact spelling of a number of bytes.
pub(crate) fn show_size(bytes: u64) -> String {
    let exact = SIZE_UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration: one or more numbers with units, such as `30s` or `1h 30min`. A bare number is
/// refused, since nobody can know its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut total_ms: u64 = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(end);
        let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
        let factor = factor.ok_or_else(|| match unit {
            "" => format!("\"{text}\" has no unit; write {number}s, {number}min or {number}h"),
            _ => format!("\"{unit}\" is no unit of time; use ms, s, min, h or d"),
        })?;
        total_ms = number
            .checked_mul(factor)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(|| format!("\"{text}\" is too long"))?;
        rest = tail.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a time-out: one of nothing would let nothing succeed.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err(format!("\"{text}\" leaves no time at all")),
        duration => Ok(duration),
    }
}

/// The exact spelling of a duration that [`parse_duration`] reads back.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut left_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left_ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, ms) in DURATION_UNITS {
        let count = left_ms / ms;
        if count > 0 {
            let gap = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{gap}{count}{unit}");
            left_ms %= ms;
        }
    }
    text
}

fn split_number(text: &str) -> Result<(u64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number = digits.parse().map_err(|_| format!("\"{text}\" does not start with a number"))?;
    Ok((number, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown_exactly() {
        for (text, bytes, shown) in [
            ("64MiB", 64 << 20, "64MiB"),
            ("64 MiB", 64 << 20, "64MiB"),
            ("1536KiB", 1536 << 10, "1536KiB"),
            ("4096", 4096, "4KiB"),
            ("0", 0, "0B"),
            ("1000B", 1000, "1000B"),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(show_size(bytes), shown);
        }
        for text in ["64MB", "x", "", "-1", "99999999999TiB", "1.5GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_read_back() {
        for (text, ms) in [
            ("30s", 30_000),
            ("10min", 600_000),
            ("1h 30min", 5_400_000),
            ("500ms", 500),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
            let shown = show_duration(Duration::from_millis(ms));
            assert_eq!(parse_duration(&shown), Ok(Duration::from_millis(ms)), "{shown}");
        }
        let error = parse_duration("30").err().unwrap_or_default();
        assert!(error.contains("30s"), "{error}");
        for text in ["5m", "s", "1h x", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_are_complete_and_carry_no_credentials() {
        let kind = Kind::Url(&["file", "s3"]);
        for good in ["file:///backup/pg", "s3://bucket/prefix", "s3://bucket"] {
            assert!(kind.parse(good).is_ok(), "{good}");
        }
        for bad in ["/backup/pg", "file://backup", "s3://", "ftp://x/y", "s3://key:hush@bucket"] {
            let error = kind.parse(bad).err().unwrap_or_default();
            assert!(!error.is_empty(), "{bad}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn choices_and_ranges_name_what_is_accepted() {
        let error = Kind::Choice(&["spread", "fast"]).parse("slow").err().unwrap_or_default();
        assert_eq!(error, "\"slow\" is none of \"spread\", \"fast\"");
        let error = Kind::Integer(1, 22).parse("23").err().unwrap_or_default();
        assert_eq!(error, "23 is not within 1 and 22");
        assert!(Kind::Integer(1, 22).parse("").is_err());
    }
}
