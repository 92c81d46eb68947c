//! Recovery times as people write them. A time without a zone is a guess, and a wrong guess brings
//! back the wrong data: it is asked for on a terminal and refused elsewhere.

use std::io::{BufRead, Write};

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, tz::AmbiguousOffset};

use crate::failure::{Failure, Kind, Outcome};

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Moment {
    Fixed(Timestamp),
    /// The zone is missing.
    Zoneless(DateTime),
}

/// Reads RFC 3339 (`2026-11-22T14:03:07Z`), what PostgreSQL prints (`2026-11-22 14:03:07.25+00`),
/// and either with `UTC` or a zone's name (`2026-11-22 15:03:07 Europe/Berlin`, with or without
/// brackets).
pub(crate) fn parse(text: &str) -> Outcome<Moment> {
    let text = text.trim();
    let refuse = |message: &str| {
        Failure::new(Kind::Usage, message).during(format!("the time \"{text}\"")).hint(
            "Write it as '2026-11-22 14:03:07+00', or with a zone: '2026-11-22 15:03:07 Europe/Berlin'.",
        )
    };
    let (day, rest) = text.split_at_checked(10).ok_or_else(|| refuse("is not complete"))?;
    let rest = rest.strip_prefix(['T', 't', ' ']).ok_or_else(|| refuse("has no time of day"))?;
    let end =
        rest.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(end);
    if clock.matches(':').count() != 2 {
        return Err(refuse("has no hours, minutes and seconds"));
    }
    let civil: DateTime =
        format!("{day}T{clock}").parse().map_err(|_| refuse("is no date and time of day"))?;
    match zone.trim() {
        "" => Ok(Moment::Zoneless(civil)),
        zone => in_zone(civil, zone).map(Moment::Fixed).map_err(|message| refuse(&message)),
    }
}

fn in_zone(civil: DateTime, zone: &str) -> Result<Timestamp, String> {
    if matches!(zone, "Z" | "z" | "UTC" | "utc" | "GMT") {
        return at_offset(civil, Offset::UTC);
    }
    if zone.starts_with(['+', '-']) {
        let (digits, name) = zone.split_at(zone.find(['[', ' ']).unwrap_or(zone.len()));
        let stated = at_offset(civil, offset(digits)?)?;
        let name = bare(name);
        if !name.is_empty() {
            let there = named(name)?.to_offset(stated);
            if there != offset(digits)? {
                return Err(format!("contradicts itself: {name} was at {there} then"));
            }
        }
        return Ok(stated);
    }
    let name = bare(zone);
    let ambiguous = named(name)?.to_ambiguous_zoned(civil);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => at_offset(civil, offset),
        AmbiguousOffset::Gap { .. } => {
            Err(format!("does not exist: clocks in {name} were put forward over it"))
        }
        AmbiguousOffset::Fold { before, after } => Err(format!(
            "was there twice in {name}, when clocks were put back: write it with {before} or {after}"
        )),
    }
}

fn bare(name: &str) -> &str {
    name.trim().trim_start_matches('[').trim_end_matches(']')
}

fn named(name: &str) -> Result<TimeZone, String> {
    // CET, EST, IST: some are several zones at once, some change their meaning in summer.
    if !name.contains('/') {
        return Err(format!("has \"{name}\", which does not say a zone without doubt"));
    }
    TimeZone::get(name)
        .map_err(|_| format!("names the zone \"{name}\", which this host does not know"))
}

fn offset(text: &str) -> Result<Offset, String> {
    let refuse = || format!("has \"{text}\", which is no offset such as +00 or +05:30");
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        _ => return Err(refuse()),
    };
    let digits = digits.replace(':', "");
    if !matches!(digits.len(), 2 | 4 | 6) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    let mut seconds = 0;
    for (part, unit, below) in [(0, 3600, 24), (2, 60, 60), (4, 1, 60)] {
        let number: i32 = match digits.get(part..part + 2) {
            Some(two) => two.parse().map_err(|_| refuse())?,
            None => 0,
        };
        if number >= below {
            return Err(refuse());
        }
        seconds += number * unit;
    }
    Offset::from_seconds(sign * seconds).map_err(|_| refuse())
}

fn at_offset(civil: DateTime, offset: Offset) -> Result<Timestamp, String> {
    offset.to_timestamp(civil).map_err(|_| "is out of range".to_owned())
}

/// Settles a time without a zone: on a terminal by asking, elsewhere by refusing.
pub(crate) fn settle(
    moment: Moment,
    local: &TimeZone,
    terminal: Option<(&mut dyn BufRead, &mut dyn Write)>,
) -> Outcome<Timestamp> {
    let civil = match moment {
        Moment::Fixed(timestamp) => return Ok(timestamp),
        Moment::Zoneless(civil) => civil,
    };
    let utc = in_zone(civil, "UTC").map_err(|message| Failure::new(Kind::Usage, message))?;
    let Some((input, output)) = terminal else {
        return Err(Failure::new(Kind::Usage, format!("the time \"{civil}\" has no zone"))
            .hint("Add one: +00 for UTC, or the name of a zone such as Europe/Berlin."));
    };
    let here = local.to_ambiguous_zoned(civil).unambiguous().ok().map(|zoned| zoned.timestamp());
    let both = |at: Timestamp| {
        let zoned = at.to_zoned(local.clone());
        let local = zoned.strftime("%Y-%m-%d %H:%M:%S %Z");
        format!("{} = {local}", at.strftime("%Y-%m-%d %H:%M:%S UTC"))
    };
    let mut question =
        format!("The time {civil} has no zone. Which one is meant?\n  u  UTC:    {}\n", both(utc));
    if let Some(here) = here {
        question.push_str(&format!("  l  local:  {}\n", both(here)));
    }
    question.push_str("u or l? ");
    let asked = |error: std::io::Error| {
        Failure::from_error(Kind::Unavailable, &error).during("asking for the time zone")
    };
    output.write_all(question.as_bytes()).and_then(|()| output.flush()).map_err(asked)?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(asked)?;
    match (answer.trim(), here) {
        ("u" | "U" | "utc" | "UTC", _) => Ok(utc),
        ("l" | "L" | "local", Some(here)) => Ok(here),
        _ => Err(Failure::new(Kind::Usage, "no zone was chosen")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(text: &str) -> String {
        match parse(text) {
            Ok(Moment::Fixed(at)) => at.to_string(),
            Ok(Moment::Zoneless(civil)) => format!("zoneless {civil}"),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn the_usual_spellings_mean_the_same_moment() {
        for text in [
            "2026-11-22T14:03:07Z",
            "2026-11-22 14:03:07+00",
            "2026-11-22 14:03:07 UTC",
            "2026-11-22 14:03:07 +00:00",
            "2026-11-22 15:03:07+0100",
            "2026-11-22 19:33:07+05:30",
            "2026-11-22 15:03:07 Europe/Berlin",
            "2026-11-22T15:03:07+01:00[Europe/Berlin]",
            "2026-11-22 15:03:07 [Europe/Berlin]",
            " 2026-11-22 14:03:07Z ",
        ] {
            assert_eq!(fixed(text), "2026-11-22T14:03:07Z", "{text}");
        }
        assert_eq!(fixed("2026-11-22 14:03:07.250001-03"), "2026-11-22T17:03:07.250001Z");
        assert_eq!(fixed("2026-11-22 14:03:07"), "zoneless 2026-11-22T14:03:07");
    }

    #[test]
    fn doubtful_times_are_refused() {
        for (text, part) in [
            ("yesterday", "is not complete"),
            ("2026-11-22", "has no time of day"),
            ("2026-11-22 14:03+00", "hours, minutes and seconds"),
            ("2026-13-22 14:03:07+00", "is no date"),
            ("2026-11-22 14:03:07 CET", "does not say a zone without doubt"),
            ("2026-11-22 14:03:07 Mars/Base", "does not know"),
            ("2026-11-22 14:03:07+25", "no offset"),
            ("2026-11-22 14:03:07+1", "no offset"),
            ("2026-10-25 02:30:00 Europe/Berlin", "was there twice"),
            ("2026-03-29 02:30:00 Europe/Berlin", "does not exist"),
            ("2026-07-01 12:00:00+01:00[Europe/Berlin]", "contradicts itself"),
            ("2026-11-22ü14:03:07", "has no time of day"),
        ] {
            let found = fixed(text);
            assert!(found.contains(part), "{text}: {found}");
        }
    }

    #[test]
    fn without_a_zone_it_is_asked_or_refused() {
        let local = TimeZone::get("Europe/Berlin").expect("the zone");
        let ask = |answer: &str| {
            let mut shown = Vec::new();
            let mut input = answer.as_bytes();
            let moment = parse("2026-11-22 14:03:07")?;
            let at = settle(moment, &local, Some((&mut input, &mut shown)))?;
            Ok::<_, Failure>((at.to_string(), String::from_utf8_lossy(&shown).into_owned()))
        };
        let (utc, question) = ask("u\n").expect("an answer");
        assert_eq!(utc, "2026-11-22T14:03:07Z");
        assert!(
            question.contains("2026-11-22 14:03:07 UTC = 2026-11-22 15:03:07 CET"),
            "{question}"
        );
        assert!(
            question.contains("2026-11-22 13:03:07 UTC = 2026-11-22 14:03:07 CET"),
            "{question}"
        );
        assert_eq!(ask("l\n").expect("an answer").0, "2026-11-22T13:03:07Z");
        assert!(ask("\n").is_err());
        let moment = parse("2026-11-22 14:03:07").expect("a time");
        assert!(settle(moment, &local, None).is_err_and(|failure| failure.kind == Kind::Usage));
    }
}
