//! Which backups are kept, by rules that all hold at once: a backup goes only if no rule keeps it.
//!
//! Nothing here looks at a store or a clock: candidates and the time are handed in, so that every
//! decision can be printed, tested and refused.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Unit};
use pgrecall_repo::id::BackupId;

use crate::catalog::order::Place;

/// What is to be kept of one lineage of a cluster. Counts of zero and absent durations keep nothing
/// by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeepRules {
    /// The newest so many.
    pub last: u32,
    /// Those younger than this.
    pub within: Option<SignedDuration>,
    /// Those that it takes to get to any moment of this long a time.
    pub window: Option<SignedDuration>,
    /// The newest of each of the last so many days, weeks, months and years that have one.
    pub daily: u32,
    /// Weeks, from Monday (ISO 8601).
    pub weekly: u32,
    /// Calendar months.
    pub monthly: u32,
    /// Calendar years.
    pub yearly: u32,
}

impl KeepRules {
    /// Whether nothing is asked for: then everything is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A backup that the rules decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The backup.
    pub id: BackupId,
    /// When it was consistent, and its place among the others.
    pub place: Place,
    /// When it was consistent by its own host's clock, which tells its date.
    pub ended: Timestamp,
    /// Whether it can be restored as far as can be told without reading all of it: its WAL is
    /// stored, and its chunks are, and none of them was found bad.
    pub good: bool,
    /// Whether pages of it were damaged in the source already.
    pub damaged: bool,
    /// Whether recovery from it can follow the newest timeline: after a restore to an earlier time
    /// the abandoned timeline's backups are younger, and do not lead to what the server is now.
    pub leads_to_newest: bool,
    /// Why a person wants it kept, if so.
    pub held: Option<String>,
}

/// Why a backup is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is one of the newest.
    Last {
        /// 1 for the newest.
        place: u32,
    },
    /// It is young.
    Within,
    /// Moments of the recovery window are reached from it.
    Window,
    /// It is the newest of a period.
    Newest {
        /// Such as `2026-11-22`, `2026-W47`, `2026-11` or `2026`.
        of: String,
    },
    /// It is newer than the newest good one: what is wrong with it may be mended.
    NewerThanGood,
    /// A person holds it.
    Held {
        /// Why.
        reason: String,
    },
    /// It is the last one that can be restored, or the last one of those without damage, or of
    /// those that lead to the newest timeline.
    LastGood,
}

impl Reason {
    /// Whether WAL after it is kept because of it, and not only what makes it consistent: a backup
    /// kept for its date is a state of that date.
    #[must_use]
    pub const fn keeps_wal_after(&self) -> bool {
        matches!(
            self,
            Self::Last { .. } | Self::Within | Self::Window | Self::NewerThanGood | Self::LastGood
        )
    }
}

/// Why each backup is kept; those without a reason go.
pub type Reasons = BTreeMap<BackupId, Vec<Reason>>;

/// Applies the rules to the backups of one lineage.
#[must_use]
pub fn judge(
    candidates: &[Candidate],
    rules: &KeepRules,
    now: Timestamp,
    zone: &TimeZone,
) -> Reasons {
    let mut newest_first: Vec<&Candidate> = candidates.iter().collect();
    newest_first.sort_by_key(|backup| std::cmp::Reverse((backup.place, backup.id)));
    let mut reasons = Reasons::new();
    let mut keep = |backup: &Candidate, reason: Reason| {
        reasons.entry(backup.id).or_default().push(reason);
    };
    // A count is of backups that serve: a run of failures must not push out what works.
    let good = || newest_first.iter().copied().filter(|backup| backup.good);
    for (backup, place) in good().zip(1..=rules.last) {
        keep(backup, Reason::Last { place });
    }
    for backup in newest_first.iter().take_while(|backup| !backup.good) {
        keep(backup, Reason::NewerThanGood);
    }
    for backup in &newest_first {
        if let Some(reason) = &backup.held {
            keep(backup, Reason::Held { reason: reason.clone() });
        }
        if rules.within.is_some_and(|span| now.duration_since(backup.place.moment) <= span) {
            keep(backup, Reason::Within);
        }
    }
    if let Some(span) = rules.window {
        let begins = now.checked_sub(span).unwrap_or(Timestamp::MIN);
        for backup in &newest_first {
            if backup.place.moment > begins {
                keep(backup, Reason::Window);
            }
        }
        // The moments at the window's beginning are reached from the last one before it; on the
        // newest timeline, where that one lies on a way that was left, from another.
        let before = || good().filter(|backup| backup.place.moment <= begins);
        let leading = before().find(|backup| backup.leads_to_newest);
        for before in before().next().into_iter().chain(leading) {
            keep(before, Reason::Window);
        }
    }
    for (count, period) in [
        (rules.daily, Period::Day),
        (rules.weekly, Period::Week),
        (rules.monthly, Period::Month),
        (rules.yearly, Period::Year),
    ] {
        for (backup, of) in newest_of_each(good(), period, zone, count) {
            keep(backup, Reason::Newest { of });
        }
    }
    let undamaged = good().find(|backup| !backup.damaged);
    let leading = good().find(|backup| backup.leads_to_newest);
    let last_good = [good().next(), undamaged, leading];
    for backup in last_good.into_iter().flatten() {
        keep(backup, Reason::LastGood);
    }
    for reasons in reasons.values_mut() {
        reasons.sort();
        reasons.dedup();
    }
    reasons
}

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    fn name(self, date: Date) -> String {
        match self {
            Self::Day => date.to_string(),
            Self::Week => {
                let week = date.iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Month => format!("{:04}-{:02}", date.year(), date.month()),
            Self::Year => format!("{:04}", date.year()),
        }
    }
}

fn newest_of_each<'a>(
    newest_first: impl Iterator<Item = &'a Candidate>,
    period: Period,
    zone: &TimeZone,
    count: u32,
) -> Vec<(&'a Candidate, String)> {
    let mut found: Vec<(&Candidate, String)> = Vec::new();
    for backup in newest_first {
        // By its own clock: were the one here behind, all that is younger would be of one day.
        let of = period.name(backup.ended.to_zoned(zone.clone()).date());
        if found.iter().any(|(_, known)| *known == of) {
            continue;
        }
        if found.len() >= usize::try_from(count).unwrap_or(usize::MAX) {
            break;
        }
        found.push((backup, of));
    }
    found
}

/// The earliest moment that can be reached: the oldest of these backups, of those that lead to the
/// newest timeline if there are any.
#[must_use]
pub fn reach_back(candidates: &[Candidate], kept: &Reasons) -> Option<Timestamp> {
    let continuous = |backup: &&Candidate| {
        backup.good
            && kept
                .get(&backup.id)
                .is_some_and(|reasons| reasons.iter().any(Reason::keeps_wal_after))
    };
    let moments = |leading: bool| {
        let reached = candidates.iter().filter(continuous);
        reached.filter(move |backup| !leading || backup.leads_to_newest)
    };
    let oldest = moments(true).map(|backup| backup.place.moment).min();
    let oldest = oldest.or_else(|| moments(false).map(|backup| backup.place.moment).min())?;
    oldest.round(Unit::Second).ok()
}

#[cfg(test)]
mod tests {
    use pgrecall_pgformat::{Lsn, TimelineId};

    use super::*;

    fn id(number: u8) -> BackupId {
        BackupId::from_bytes([number; 16])
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn backup(number: u8, ended: &str) -> Candidate {
        Candidate {
            id: id(number),
            place: Place {
                moment: at(ended),
                lsn: Lsn(u64::from(number)),
                timeline: TimelineId(1),
            },
            ended: at(ended),
            good: true,
            damaged: false,
            leads_to_newest: true,
            held: None,
        }
    }

    /// One a day at two o'clock, from 1 October 2026 on.
    fn days(count: u8) -> Vec<Candidate> {
        let first = at("2026-10-01T02:00:00Z");
        let day = |number: u8| first + SignedDuration::from_hours(24 * i64::from(number));
        (0..count).map(|number| backup(number, &day(number).to_string())).collect()
    }

    fn kept(candidates: &[Candidate], rules: &KeepRules, now: &str) -> Vec<u8> {
        let kept = judge(candidates, rules, at(now), &TimeZone::UTC);
        kept.keys().map(|id| id.as_bytes()[0]).collect()
    }

    #[test]
    fn the_last_ones_are_counted_among_those_that_serve() {
        let mut all = days(5);
        all[2].good = false;
        let rules = KeepRules { last: 3, ..KeepRules::default() };
        assert_eq!(kept(&all, &rules, "2026-10-06T00:00:00Z"), vec![1, 3, 4]);
    }

    #[test]
    fn what_is_newer_than_the_newest_good_one_stays() {
        let mut all = days(5);
        all[3].good = false;
        all[4].good = false;
        let rules = KeepRules { last: 1, ..KeepRules::default() };
        assert_eq!(kept(&all, &rules, "2026-10-06T00:00:00Z"), vec![2, 3, 4]);
    }

    #[test]
    fn of_one_second_the_place_in_the_wal_decides() {
        let second = "2026-10-01T02:00:00Z";
        let all = [backup(3, second), backup(1, second), backup(2, second)];
        let rules = KeepRules { last: 2, ..KeepRules::default() };
        assert_eq!(kept(&all, &rules, "2026-10-06T00:00:00Z"), vec![2, 3]);
    }

    #[test]
    fn the_last_good_one_stays_whatever_the_rules_say() {
        let mut all = days(4);
        all[3].damaged = true;
        let rules = KeepRules { within: Some(SignedDuration::ZERO), ..KeepRules::default() };
        let reasons = judge(&all, &rules, at("2030-01-01T00:00:00Z"), &TimeZone::UTC);
        assert_eq!(reasons.get(&id(3)), Some(&vec![Reason::LastGood]), "it can be restored");
        assert_eq!(reasons.get(&id(2)), Some(&vec![Reason::LastGood]), "it has no damage");
        assert_eq!(reasons.len(), 2);
    }

    #[test]
    fn a_backup_that_leads_to_the_newest_timeline_stays() {
        let mut all = days(4);
        all[2].leads_to_newest = false;
        all[3].leads_to_newest = false;
        let rules = KeepRules { last: 1, ..KeepRules::default() };
        assert_eq!(kept(&all, &rules, "2026-10-06T01:00:00Z"), vec![1, 3]);
    }

    #[test]
    fn a_window_needs_the_last_one_before_it() {
        let window = Some(SignedDuration::from_hours(48));
        let rules = KeepRules { window, ..KeepRules::default() };
        // From 4 October 01:00 on: that of the 3rd leads there.
        assert_eq!(kept(&days(5), &rules, "2026-10-06T01:00:00Z"), vec![2, 3, 4]);
        let mut broken = days(5);
        broken[2].good = false;
        assert_eq!(kept(&broken, &rules, "2026-10-06T01:00:00Z"), vec![1, 3, 4]);
    }

    #[test]
    fn a_window_is_reached_on_the_newest_timeline_too() {
        let mut all = days(20);
        // Of the 11th to the 13th, on a timeline that was left when the one of the 10th came back.
        for backup in &mut all[10..13] {
            backup.leads_to_newest = false;
        }
        all.truncate(13);
        all.extend(days(20).split_off(18));
        let window = Some(SignedDuration::from_hours(72));
        let rules = KeepRules { window, ..KeepRules::default() };
        let now = "2026-10-20T03:00:00Z";
        assert_eq!(kept(&all, &rules, now), vec![9, 12, 18, 19]);
        let reasons = judge(&all, &rules, at(now), &TimeZone::UTC);
        assert_eq!(reach_back(&all, &reasons), Some(all[9].ended));
    }

    #[test]
    fn dates_are_those_of_the_backups_though_the_clock_here_is_behind() {
        let now = "2026-10-20T00:00:00Z";
        let mut all = days(40);
        for backup in &mut all {
            backup.place.moment = backup.place.moment.min(at(now));
        }
        let rules = KeepRules { daily: 7, ..KeepRules::default() };
        assert_eq!(kept(&all, &rules, now), (33..40).collect::<Vec<u8>>());
    }

    #[test]
    fn grandfather_father_and_son_at_once() {
        let all = days(60);
        let rules = KeepRules { daily: 3, weekly: 2, monthly: 2, yearly: 1, ..Default::default() };
        // The last is of 29 November, a Sunday.
        let reasons = judge(&all, &rules, at("2026-11-29T03:00:00Z"), &TimeZone::UTC);
        let of = |number: u8| reasons.get(&id(number)).cloned().unwrap_or_default();
        let newest = |of: &str| Reason::Newest { of: of.into() };
        let all_of_the_newest = [
            newest("2026"),
            newest("2026-11"),
            newest("2026-11-29"),
            newest("2026-W48"),
            Reason::LastGood,
        ];
        assert_eq!(of(59), all_of_the_newest);
        assert_eq!(of(58), vec![newest("2026-11-28")]);
        assert_eq!(of(57), vec![newest("2026-11-27")]);
        assert_eq!(of(52), vec![newest("2026-W47")]);
        assert_eq!(of(30), vec![newest("2026-10")]);
        assert_eq!(reasons.len(), 5);
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let all = [backup(1, "2026-11-22T23:30:00Z"), backup(2, "2026-11-22T12:00:00Z")];
        let rules = KeepRules { daily: 2, ..KeepRules::default() };
        let now = at("2026-11-24T00:00:00Z");
        assert_eq!(judge(&all, &rules, now, &TimeZone::UTC).len(), 1);
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(judge(&all, &rules, now, &zone).len(), 2, "half past midnight of the 23rd");
    }

    #[test]
    fn what_a_person_holds_stays() {
        let mut all = days(3);
        all[0].held = Some("audit 2026".into());
        let rules = KeepRules { last: 1, ..KeepRules::default() };
        assert_eq!(kept(&all, &rules, "2026-10-06T00:00:00Z"), vec![0, 2]);
    }

    #[test]
    fn one_reaches_back_to_the_oldest_one_with_wal_after_it() {
        let all = days(40);
        let rules = KeepRules { last: 3, monthly: 2, ..KeepRules::default() };
        let reasons = judge(&all, &rules, at("2026-11-10T00:00:00Z"), &TimeZone::UTC);
        assert!(reasons.contains_key(&id(30)), "that of 31 October");
        assert_eq!(reach_back(&all, &reasons), Some(all[37].place.moment));
    }
}
