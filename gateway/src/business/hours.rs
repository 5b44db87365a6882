//! When a business is open, computed from its hours.
//!
//! A span belongs to the date on which it opens. A local time that does not exist moves on by the gap; of a local time
//! that exists twice the first counts (RFC 5545). Both can make a span longer or shorter than on the clock; a span that
//! would close before it opens is never open.

use std::{collections::BTreeMap, fmt, iter, ops::Range};

use chat_shared::{
    clock::Timestamp,
    wire::{Hours, Weekday},
};
use jiff::{
    SignedDuration,
    civil::{Date, Time},
    tz::TimeZone,
};

/// Spans that may open on one date.
const SPANS_PER_DAY_MAX: usize = 4;
/// Exceptions of one business.
const EXCEPTIONS_MAX: usize = 100;
const MS_PER_DAY: i64 = 86_400_000;
/// How far ahead a closing is looked for.
const CLOSES_WITHIN_MS: i64 = 8 * MS_PER_DAY;
/// How far ahead an opening is looked for.
const OPENS_WITHIN_MS: i64 = 30 * MS_PER_DAY;

/// How far before the local date the spans that can still be open begin: those of the night one date back, two where
/// the zone left out a date.
const DATES_BEFORE: SignedDuration = SignedDuration::from_hours(2 * 24);
/// Dates from there whose spans can be open: up to the day after the local date, which has begun already where the
/// clock then went back across midnight.
const OPEN_DATES: usize = 4;
/// Dates from there whose spans can open within 30 days: a change of the offset can move the last moment to a 31st.
const OPENING_DATES: usize = 2 + 1 + 31;

/// Why hours are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoursError {
    /// `zone` is not in the time zone database.
    #[error("`zone` is not in the IANA time zone database; send a name such as `Asia/Kathmandu`")]
    UnknownZone,
    /// An entry of `weekly` names no day.
    #[error("{0}: `days` is empty; name at least one day or leave out the entry")]
    NoDays(Place),
    /// An entry of `weekly` names a day twice.
    #[error("{0}: `days` names a day twice; name each day once")]
    DayTwice(Place),
    /// `opens` is not a time.
    #[error("{0}: `opens` is not a time; send HH:MM from 00:00 to 23:59")]
    Opens(Place),
    /// `closes` is not a time.
    #[error("{0}: `closes` is not a time; send HH:MM from 00:00 to 24:00")]
    Closes(Place),
    /// `closes` equals `opens`.
    #[error("{0}: `closes` equals `opens`; for the whole day send 00:00 and 24:00")]
    Equal(Place),
    /// Two spans of a day overlap.
    #[error("{0}: a span overlaps another one of the same day; join them or move one")]
    Overlap(Place),
    /// Too many spans of a day.
    #[error("{0}: more than {SPANS_PER_DAY_MAX} spans open on one day; join or remove some")]
    TooManySpans(Place),
    /// Too many exceptions.
    #[error("`exceptions` has more than {EXCEPTIONS_MAX} entries; remove those in the past")]
    TooManyExceptions,
    /// `date` is not a date.
    #[error("{0}: `date` does not exist; send a date of the calendar as YYYY-MM-DD")]
    Date(Place),
    /// Two exceptions have the same date.
    #[error("{0}: an earlier exception has the same `date`; send one exception with all spans of the date")]
    DateTwice(Place),
}

/// The entry of the hours that is refused, counted from 0; shown as `weekly[2]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An entry of `weekly`.
    Weekly(usize),
    /// An entry of `exceptions`.
    Exception(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weekly(index) => write!(f, "weekly[{index}]"),
            Self::Exception(index) => write!(f, "exceptions[{index}]"),
        }
    }
}

/// Whether a business is open, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Whether it is open.
    pub is_open: bool,
    /// When that changes. Absent if an open business does not close within 8 days, or a closed one does not open within
    /// 30 days.
    pub changes_at: Option<Timestamp>,
}

/// Hours that have been checked, with their time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    zone: TimeZone,
    /// The spans that open on each day of the week, from Monday.
    weekly: [Vec<Times>; 7],
    /// The spans that open on a date, instead of the weekday's.
    exceptions: BTreeMap<Date, Vec<Times>>,
}

impl Schedule {
    /// Checks `hours`. `is_enforced` has no effect on the schedule.
    pub fn new(hours: &Hours) -> Result<Self, HoursError> {
        let zone = TimeZone::get(&hours.zone).map_err(|_| HoursError::UnknownZone)?;
        // jiff knows a zone `Etc/Unknown`, which the database lacks.
        if zone.is_unknown() {
            return Err(HoursError::UnknownZone);
        }
        if hours.exceptions.len() > EXCEPTIONS_MAX {
            return Err(HoursError::TooManyExceptions);
        }
        let mut weekly = <[Vec<Times>; 7]>::default();
        for (index, entry) in hours.weekly.iter().enumerate() {
            let place = Place::Weekly(index);
            if entry.days.is_empty() {
                return Err(HoursError::NoDays(place));
            }
            let times = Times::new(&entry.opens, &entry.closes, place)?;
            let mut is_named = [false; 7];
            for &day in &entry.days {
                if std::mem::replace(&mut is_named[index_of(day)], true) {
                    return Err(HoursError::DayTwice(place));
                }
                add(&mut weekly[index_of(day)], times, place)?;
            }
        }
        let mut exceptions = BTreeMap::new();
        for (index, entry) in hours.exceptions.iter().enumerate() {
            let place = Place::Exception(index);
            let date = parse_date(&entry.date).ok_or(HoursError::Date(place))?;
            let mut spans = Vec::new();
            for span in &entry.spans {
                add(&mut spans, Times::new(&span.opens, &span.closes, place)?, place)?;
            }
            if exceptions.insert(date, spans).is_some() {
                return Err(HoursError::DateTwice(place));
            }
        }
        Ok(Self { zone, weekly, exceptions })
    }

    /// Whether the business is open at `now`, and when that changes. A moment beyond the calendar (years −9999 to 9999)
    /// is closed without change.
    pub fn at(&self, now: Timestamp) -> Opening {
        match self.end_of_spans(now.0) {
            Some(end) => Opening { is_open: true, changes_at: self.closes_at(now.0, end).map(Timestamp) },
            None => Opening { is_open: false, changes_at: self.opens_at(now.0).map(Timestamp) },
        }
    }

    /// The moment after which no span is open, from `end` of the spans that are open at `now`: spans that touch or
    /// overlap are one.
    fn closes_at(&self, now: i64, mut end: i64) -> Option<i64> {
        let is_near = |moment: i64| moment - now <= CLOSES_WITHIN_MS;
        while is_near(end) {
            match self.end_of_spans(end) {
                Some(later) => end = later,
                None => return Some(end),
            }
        }
        None
    }

    /// The first moment after `now` at which a span opens, if none is open at `now`.
    fn opens_at(&self, now: i64) -> Option<i64> {
        let mut first = None;
        for date in self.dates(now).take(OPENING_DATES) {
            let before = first;
            let starts = self.spans(date).filter(|span| !span.is_empty()).map(|span| span.start);
            first = starts.filter(|start| *start > now).chain(first).min();
            // A time in a gap across midnight moves past times of the next date, so the first opening can be there.
            if before.is_some() {
                break;
            }
        }
        first.filter(|first| first - now <= OPENS_WITHIN_MS)
    }

    /// The latest end of the spans that are open at `moment`; none if it is closed then.
    fn end_of_spans(&self, moment: i64) -> Option<i64> {
        let dates = self.dates(moment).take(OPEN_DATES);
        dates.flat_map(|date| self.spans(date)).filter(|span| span.contains(&moment)).map(|span| span.end).max()
    }

    /// The dates from `DATES_BEFORE` the local date of `moment`; none beyond the calendar.
    fn dates(&self, moment: i64) -> impl Iterator<Item = Date> {
        let today = jiff::Timestamp::from_millisecond(moment).ok().map(|moment| self.zone.to_datetime(moment).date());
        let first = today.map(|today| today.saturating_sub(DATES_BEFORE));
        iter::successors(first, |date| date.tomorrow().ok())
    }

    /// The spans that open on `date`, in milliseconds since 1970. Empty is one that closes before it opens.
    fn spans(&self, date: Date) -> impl Iterator<Item = Range<i64>> {
        let weekday = date.weekday().to_monday_zero_offset().unsigned_abs();
        let spans = self.exceptions.get(&date).unwrap_or(&self.weekly[usize::from(weekday)]);
        spans.iter().filter_map(move |times| {
            let closing_date = if times.closes_next_day() { date.tomorrow().ok()? } else { date };
            Some(self.moment(date, times.opens)?..self.moment(closing_date, times.closes)?)
        })
    }

    /// The moment of a local time; none beyond the calendar.
    fn moment(&self, date: Date, time: Time) -> Option<i64> {
        Some(self.zone.to_timestamp(date.to_datetime(time)).ok()?.as_millisecond())
    }
}

/// The local times of a span. 24:00 is kept as 00:00 of the next day.
#[derive(Debug, Clone, Copy)]
struct Times {
    opens: Time,
    closes: Time,
}

impl Times {
    fn new(opens: &str, closes: &str, place: Place) -> Result<Self, HoursError> {
        let times = Self {
            opens: parse_time(opens).ok_or(HoursError::Opens(place))?,
            closes: if closes == "24:00" {
                Time::midnight()
            } else {
                parse_time(closes).ok_or(HoursError::Closes(place))?
            },
        };
        if opens == closes { Err(HoursError::Equal(place)) } else { Ok(times) }
    }

    fn closes_next_day(self) -> bool {
        self.closes <= self.opens
    }

    /// Whether two spans that open on the same date overlap on the clock.
    fn overlaps(self, other: Self) -> bool {
        let (first, second) = if self.opens <= other.opens { (self, other) } else { (other, self) };
        first.closes_next_day() || second.opens < first.closes
    }
}

/// Adds a span to those of a day.
fn add(spans: &mut Vec<Times>, times: Times, place: Place) -> Result<(), HoursError> {
    if spans.len() == SPANS_PER_DAY_MAX {
        return Err(HoursError::TooManySpans(place));
    }
    if spans.iter().any(|other| other.overlaps(times)) {
        return Err(HoursError::Overlap(place));
    }
    spans.push(times);
    Ok(())
}

/// A time written as `HH:MM`, from 00:00 to 23:59.
fn parse_time(text: &str) -> Option<Time> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0').cast_signed());
    match *text.as_bytes() {
        [h, hh, b':', m, mm] => Time::new(digit(h)? * 10 + digit(hh)?, digit(m)? * 10 + digit(mm)?, 0, 0).ok(),
        _ => None,
    }
}

/// A date written as `YYYY-MM-DD`. jiff reads further forms, which are refused.
fn parse_date(text: &str) -> Option<Date> {
    text.parse::<Date>().ok().filter(|date| date.to_string() == text)
}

/// The place of a day in a week from Monday.
const fn index_of(day: Weekday) -> usize {
    day as usize
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::{HoursException, Span, WeeklySpans};
    use proptest::{prelude::*, sample::Index};

    use super::*;
    use Weekday::{Fri, Mon, Sat, Sun, Thu, Tue, Wed};

    const DAILY: &[Weekday] = &Weekday::ALL;
    const WORKING: &[Weekday] = &[Mon, Tue, Wed, Thu, Fri];
    /// Sunday to Friday.
    const KATHMANDU: &[Weekday] = &[Sun, Mon, Tue, Wed, Thu, Fri];

    fn hours(zone: &str, weekly: &[(&[Weekday], &str, &str)], exceptions: &[(&str, &[(&str, &str)])]) -> Hours {
        let weekly = weekly.iter().map(|(days, opens, closes)| WeeklySpans {
            days: days.to_vec(),
            opens: (*opens).into(),
            closes: (*closes).into(),
        });
        let exceptions = exceptions.iter().map(|(date, spans)| HoursException {
            date: (*date).into(),
            spans: spans.iter().map(|(opens, closes)| span(opens, closes)).collect(),
        });
        Hours { zone: zone.into(), is_enforced: true, weekly: weekly.collect(), exceptions: exceptions.collect() }
    }

    fn span(opens: &str, closes: &str) -> Span {
        Span { opens: opens.into(), closes: closes.into() }
    }

    fn moment(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn open(until: &str) -> Opening {
        Opening { is_open: true, changes_at: Some(moment(until)) }
    }

    fn closed(until: &str) -> Opening {
        Opening { is_open: false, changes_at: Some(moment(until)) }
    }

    const NEVER_CLOSES: Opening = Opening { is_open: true, changes_at: None };
    const NEVER_OPENS: Opening = Opening { is_open: false, changes_at: None };

    /// Each row is a moment and the answer at it.
    fn check(hours: &Hours, rows: &[(&str, Opening)]) {
        let schedule = Schedule::new(hours).unwrap();
        for (now, expected) in rows {
            assert_eq!(schedule.at(moment(now)), *expected, "{} at {now}", hours.zone);
        }
    }

    #[test]
    fn days_follow_the_zone_and_exceptions_replace_them_r7_4() {
        let weekly: &[(&[Weekday], &str, &str)] = &[(KATHMANDU, "10:00", "18:00")];
        let rows = [
            ("2026-03-01T04:14:59Z", closed("2026-03-01T04:15:00Z")),
            ("2026-03-01T04:15:00Z", open("2026-03-01T12:15:00Z")),
            ("2026-03-01T12:15:00Z", closed("2026-03-02T04:15:00Z")),
            ("2026-03-07T06:00:00Z", closed("2026-03-08T04:15:00Z")),
        ];
        check(&hours("Asia/Kathmandu", weekly, &[]), &rows);

        let exceptions: &[(&str, &[(&str, &str)])] = &[("2026-10-20", &[]), ("2026-10-21", &[("12:00", "14:00")])];
        let rows = [
            ("2026-10-20T06:00:00Z", closed("2026-10-21T06:15:00Z")),
            ("2026-10-21T06:15:00Z", open("2026-10-21T08:15:00Z")),
        ];
        check(&hours("Asia/Kathmandu", weekly, exceptions), &rows);
    }

    #[test]
    fn a_night_belongs_to_the_date_on_which_it_opens_r7_4() {
        let weekly: &[(&[Weekday], &str, &str)] = &[(&[Fri, Sat], "21:00", "02:00")];
        let rows = [
            ("2026-10-16T20:14:00Z", open("2026-10-16T20:15:00Z")),
            ("2026-10-16T20:15:00Z", closed("2026-10-17T15:15:00Z")),
            ("2026-10-17T19:45:00Z", open("2026-10-17T20:15:00Z")),
        ];
        check(&hours("Asia/Kathmandu", weekly, &[]), &rows);

        let rows = [
            ("2026-10-23T19:15:00Z", open("2026-10-23T20:15:00Z")),
            ("2026-10-24T18:45:00Z", closed("2026-10-30T15:15:00Z")),
        ];
        check(&hours("Asia/Kathmandu", weekly, &[("2026-10-24", &[])]), &rows);
    }

    #[test]
    fn clock_changes_move_and_stretch_spans_r7_4() {
        let rows = [
            ("2026-03-08T06:29:59Z", closed("2026-03-08T06:30:00Z")),
            ("2026-03-08T06:30:00Z", open("2026-03-08T07:30:00Z")),
            ("2026-03-08T07:29:59Z", open("2026-03-08T07:30:00Z")),
            ("2026-03-08T07:30:00Z", closed("2026-03-09T05:30:00Z")),
            ("2026-11-01T05:30:00Z", open("2026-11-01T07:30:00Z")),
            ("2026-11-01T06:15:00Z", open("2026-11-01T07:30:00Z")),
            ("2026-11-01T07:30:00Z", closed("2026-11-02T06:30:00Z")),
        ];
        check(&hours("America/New_York", &[(DAILY, "01:30", "02:30")], &[]), &rows);

        let rows = [
            ("2026-11-01T05:29:59Z", open("2026-11-01T05:30:00Z")),
            ("2026-11-01T05:30:00Z", closed("2026-11-02T03:00:00Z")),
            ("2026-11-01T06:15:00Z", closed("2026-11-02T03:00:00Z")),
            ("2026-03-08T06:29:59Z", open("2026-03-08T06:30:00Z")),
            ("2026-03-08T06:30:00Z", closed("2026-03-09T02:00:00Z")),
        ];
        check(&hours("America/New_York", &[(DAILY, "22:00", "01:30")], &[]), &rows);

        let rows = [
            ("2026-07-01T10:30:00Z", closed("2026-07-01T11:30:00Z")),
            ("2026-01-05T08:00:00Z", open("2026-01-05T11:30:00Z")),
            ("2026-07-06T07:00:00Z", open("2026-07-06T10:30:00Z")),
        ];
        check(&hours("Europe/Berlin", &[(WORKING, "09:00", "12:30"), (WORKING, "13:30", "18:00")], &[]), &rows);

        let rows = [
            ("2026-03-29T01:14:59Z", closed("2026-03-29T01:15:00Z")),
            ("2026-03-29T01:15:00Z", open("2026-03-29T01:45:00Z")),
            ("2026-03-29T01:45:00Z", closed("2026-04-05T00:15:00Z")),
        ];
        check(&hours("Europe/Berlin", &[(&[Sun], "02:15", "02:45")], &[]), &rows);
    }

    #[test]
    fn unusual_zones_follow_the_same_rules_r7_4() {
        let rows = [
            ("2026-10-03T15:15:00Z", open("2026-10-03T15:45:00Z")),
            ("2026-10-03T15:45:00Z", closed("2026-10-04T14:45:00Z")),
        ];
        check(&hours("Australia/Lord_Howe", &[(DAILY, "01:45", "02:15")], &[]), &rows);

        let rows = [("2026-05-05T18:14:59Z", NEVER_CLOSES), ("2026-05-05T18:15:00Z", NEVER_CLOSES)];
        check(&hours("Asia/Kathmandu", &[(DAILY, "00:00", "24:00")], &[]), &rows);

        let rows = [
            ("2026-07-01T19:15:00Z", open("2026-07-02T07:15:00Z")),
            ("2026-12-31T18:15:00Z", open("2027-01-01T06:15:00Z")),
        ];
        check(&hours("Pacific/Chatham", &[(DAILY, "08:00", "20:00")], &[]), &rows);

        let rows = [
            ("2026-03-01T08:30:00Z", closed("2026-03-01T09:00:00Z")),
            ("2026-04-01T08:00:00Z", open("2026-04-01T16:00:00Z")),
        ];
        check(&hours("Africa/Casablanca", &[(DAILY, "09:00", "17:00")], &[]), &rows);

        let rows = [("2011-12-30T19:30:00Z", open("2011-12-31T03:00:00Z"))];
        check(&hours("Pacific/Apia", &[(DAILY, "09:00", "17:00")], &[]), &rows);
    }

    #[test]
    fn spans_that_touch_or_overlap_across_midnight_are_one_r7_4() {
        let weekly: &[(&[Weekday], &str, &str)] = &[(&[Fri], "21:00", "24:00"), (&[Sat], "00:00", "02:00")];
        check(&hours("UTC", weekly, &[]), &[("2026-10-16T21:00:00Z", open("2026-10-17T02:00:00Z"))]);
        let weekly: &[(&[Weekday], &str, &str)] = &[(&[Fri], "21:00", "03:00"), (&[Sat], "01:00", "05:00")];
        check(&hours("UTC", weekly, &[]), &[("2026-10-16T21:00:00Z", open("2026-10-17T05:00:00Z"))]);
        let weekly: &[(&[Weekday], &str, &str)] = &[(&[Fri], "09:00", "12:00"), (&[Fri], "12:00", "15:00")];
        check(&hours("UTC", weekly, &[]), &[("2026-10-16T09:00:00Z", open("2026-10-16T15:00:00Z"))]);
    }

    #[test]
    fn a_night_before_a_date_that_the_zone_left_out_ends_after_it_r7_4() {
        let rows = [
            ("2011-12-30T10:30:00Z", open("2011-12-30T12:00:00Z")),
            ("2011-12-30T12:00:00Z", closed("2011-12-31T08:00:00Z")),
        ];
        check(&hours("Pacific/Apia", &[(&[Thu, Sat], "22:00", "02:00")], &[]), &rows);
    }

    #[test]
    fn the_first_opening_can_be_on_a_later_date_r7_4() {
        // Friday the 30th did not exist, so its 09:00 is Saturday's.
        let weekly: &[(&[Weekday], &str, &str)] = &[(&[Fri], "09:00", "17:00"), (&[Sat], "08:00", "08:30")];
        let rows = [
            ("2011-12-30T10:30:00Z", closed("2011-12-30T18:00:00Z")),
            ("2011-12-30T18:30:00Z", closed("2011-12-30T19:00:00Z")),
        ];
        check(&hours("Pacific/Apia", weekly, &[]), &rows);
    }

    #[test]
    fn a_span_goes_on_when_the_clock_goes_back_to_the_date_before_r7_4() {
        // Sunday's first minute is followed by Saturday 23:01.
        let rows = [
            ("2010-11-07T02:29:59Z", closed("2010-11-07T02:30:00Z")),
            ("2010-11-07T02:45:00Z", open("2010-11-07T11:30:00Z")),
        ];
        check(&hours("America/St_Johns", &[(&[Sun], "00:00", "08:00")], &[]), &rows);
    }

    #[test]
    fn a_span_whose_end_comes_before_its_start_is_not_open_r7_4() {
        // 02:45 is 03:45 that night.
        let rows = [("2026-03-29T01:00:00Z", closed("2026-04-05T00:45:00Z"))];
        check(&hours("Europe/Berlin", &[(&[Sun], "02:45", "03:30")], &[]), &rows);
    }

    #[test]
    fn a_later_time_can_open_before_an_earlier_one_in_a_gap_r7_4() {
        // The clock goes from 23:59 to 01:00, so 00:30 is 01:30 and comes after 01:15.
        let weekly: &[(&[Weekday], &str, &str)] = &[(&[Fri], "00:30", "00:45"), (&[Fri], "01:15", "01:20")];
        let rows = [
            ("2026-04-23T21:00:00Z", closed("2026-04-23T22:15:00Z")),
            ("2026-04-23T22:20:00Z", closed("2026-04-23T22:30:00Z")),
        ];
        check(&hours("Africa/Cairo", weekly, &[]), &rows);
    }

    #[test]
    fn a_change_is_looked_for_within_8_and_30_days_r7_4() {
        let never = hours("UTC", &[], &[("2026-03-31", &[("12:00", "13:00")])]);
        let rows = [
            ("2026-03-01T11:59:59.999Z", NEVER_OPENS),
            ("2026-03-01T12:00:00Z", closed("2026-03-31T12:00:00Z")),
            ("2026-03-31T13:00:00Z", NEVER_OPENS),
        ];
        check(&never, &rows);
        let always = hours("UTC", &[(DAILY, "00:00", "24:00")], &[("2026-03-31", &[])]);
        let rows = [
            ("2026-03-22T23:59:59.999Z", NEVER_CLOSES),
            ("2026-03-23T00:00:00Z", open("2026-03-31T00:00:00Z")),
            ("2026-03-31T00:00:00Z", closed("2026-04-01T00:00:00Z")),
        ];
        check(&always, &rows);
        check(&Hours::default(), &[("2026-03-22T23:59:59.999Z", NEVER_CLOSES)]);
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_closed_r7_4() {
        let schedule = Schedule::new(&Hours::always()).unwrap();
        for now in
            [i64::MIN, jiff::Timestamp::MIN.as_millisecond() - 1, jiff::Timestamp::MAX.as_millisecond() + 1, i64::MAX]
        {
            assert_eq!(schedule.at(Timestamp(now)), NEVER_OPENS);
        }
    }

    fn refusal(hours: &Hours) -> HoursError {
        let error = Schedule::new(hours).unwrap_err();
        assert!(error.to_string().len() < 128, "{error}");
        error
    }

    #[test]
    fn a_zone_that_the_database_lacks_is_refused_r7_4() {
        for zone in
            ["", "Kathmandu", "Asia/Katmandoo", "+05:45", "Etc/Unknown", "Asia/Kathmandu ", &"x".repeat(100_000)]
        {
            assert_eq!(refusal(&hours(zone, &[], &[])), HoursError::UnknownZone);
        }
        for zone in ["UTC", "Asia/Katmandu", "Asia/Kathmandu", "America/Argentina/Buenos_Aires", "Etc/GMT+12"] {
            assert!(Schedule::new(&hours(zone, &[], &[])).is_ok(), "{zone}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused_r7_4() {
        let place = Place::Weekly(1);
        let with =
            |opens: &str, closes: &str| hours("UTC", &[(&[Mon], "08:00", "09:00"), (&[Tue], opens, closes)], &[]);
        let long = "1".repeat(100_000);
        for time in
            ["", "9:00", "09:0", "0900", "09:00:00", "25:00", "23:60", "-1:00", "+1:00", "०९:००", " 9:00", &long]
        {
            assert_eq!(refusal(&with(time, "18:00")), HoursError::Opens(place), "{time}");
            assert_eq!(refusal(&with("00:00", time)), HoursError::Closes(place), "{time}");
            let exception = hours("UTC", &[], &[("2026-10-20", &[(time, "18:00")])]);
            assert_eq!(refusal(&exception), HoursError::Opens(Place::Exception(0)), "{time}");
        }
        assert_eq!(refusal(&with("24:00", "18:00")), HoursError::Opens(place));
        assert_eq!(refusal(&with("00:00", "24:01")), HoursError::Closes(place));
        assert!(Schedule::new(&with("00:00", "24:00")).is_ok());
        assert!(Schedule::new(&with("23:59", "00:00")).is_ok());
    }

    #[test]
    fn a_span_without_length_is_refused_r7_4() {
        let weekly = hours("UTC", &[(&[Mon], "09:00", "09:00")], &[]);
        assert_eq!(refusal(&weekly), HoursError::Equal(Place::Weekly(0)));
        let exception = hours("UTC", &[], &[("2026-10-20", &[("00:00", "00:00")])]);
        assert_eq!(refusal(&exception), HoursError::Equal(Place::Exception(0)));
    }

    #[test]
    fn days_are_named_once_and_at_least_one_r7_4() {
        assert_eq!(refusal(&hours("UTC", &[(&[], "09:00", "10:00")], &[])), HoursError::NoDays(Place::Weekly(0)));
        let twice = hours("UTC", &[(&[Mon, Tue, Mon], "09:00", "10:00")], &[]);
        assert_eq!(refusal(&twice), HoursError::DayTwice(Place::Weekly(0)));
    }

    #[test]
    fn spans_of_a_day_that_overlap_are_refused_r7_4() {
        let cases = [
            [("09:00", "12:00"), ("11:59", "13:00")],
            [("09:00", "12:00"), ("09:00", "12:00")],
            [("09:00", "12:00"), ("09:00", "10:00")],
            [("09:00", "12:00"), ("08:00", "13:00")],
            [("21:00", "02:00"), ("23:00", "23:30")],
            [("21:00", "02:00"), ("23:59", "01:00")],
            [("00:00", "24:00"), ("23:59", "24:00")],
            [("21:00", "02:00"), ("20:00", "24:00")],
        ];
        for [first, second] in cases {
            for [first, second] in [[first, second], [second, first]] {
                let weekly = hours("UTC", &[(DAILY, first.0, first.1), (&[Wed], second.0, second.1)], &[]);
                assert_eq!(refusal(&weekly), HoursError::Overlap(Place::Weekly(1)), "{first:?} {second:?}");
                let exception = hours("UTC", &[], &[("2026-10-20", &[first, second])]);
                assert_eq!(refusal(&exception), HoursError::Overlap(Place::Exception(0)), "{first:?} {second:?}");
            }
        }
        // The end of a night is on the next date, so it does not overlap the morning of its own.
        let apart = hours("UTC", &[(DAILY, "21:00", "02:00"), (DAILY, "01:00", "05:00")], &[]);
        assert!(Schedule::new(&apart).is_ok());
    }

    #[test]
    fn a_day_has_at_most_4_spans_r7_4() {
        let spans =
            [("00:00", "01:00"), ("02:00", "03:00"), ("04:00", "05:00"), ("06:00", "07:00"), ("08:00", "09:00")];
        let weekly = spans.map(|(opens, closes)| (&[Mon, Sun][..], opens, closes));
        assert!(Schedule::new(&hours("UTC", &weekly[..4], &[("2026-10-20", &spans[..4])])).is_ok());
        assert_eq!(refusal(&hours("UTC", &weekly, &[])), HoursError::TooManySpans(Place::Weekly(4)));
        let exception = hours("UTC", &[], &[("2026-10-20", &spans)]);
        assert_eq!(refusal(&exception), HoursError::TooManySpans(Place::Exception(0)));
    }

    #[test]
    fn a_business_has_at_most_100_exceptions_r7_4() {
        let dates: Vec<String> = (0..101).map(|day| format!("2026-{:02}-{:02}", day / 28 + 1, day % 28 + 1)).collect();
        let exceptions: Vec<(&str, &[(&str, &str)])> = dates.iter().map(|date| (date.as_str(), &[][..])).collect();
        assert!(Schedule::new(&hours("UTC", &[], &exceptions[..100])).is_ok());
        assert_eq!(refusal(&hours("UTC", &[], &exceptions)), HoursError::TooManyExceptions);
    }

    #[test]
    fn a_date_that_does_not_exist_is_refused_r7_4() {
        let long = "2026-10-20".repeat(10_000);
        let dates = [
            "",
            "2026-02-29",
            "2026-04-31",
            "2026-13-01",
            "2026-00-01",
            "2026-1-1",
            "20261020",
            "26-10-20",
            "2026-W43-2",
            "2026-10-20T00:00",
            "2026-10-20 ",
            "+002026-10-20",
            "20/10/2026",
            "2026-10-२०",
            &long,
        ];
        for date in dates {
            assert_eq!(refusal(&hours("UTC", &[], &[(date, &[])])), HoursError::Date(Place::Exception(0)), "{date}");
        }
        assert!(Schedule::new(&hours("UTC", &[], &[("2028-02-29", &[])])).is_ok());
    }

    #[test]
    fn a_date_is_excepted_once_r7_4() {
        let twice = hours("UTC", &[], &[("2026-10-20", &[]), ("2026-10-21", &[]), ("2026-10-20", &[])]);
        assert_eq!(refusal(&twice), HoursError::DateTwice(Place::Exception(2)));
    }

    #[test]
    fn a_refusal_says_where_it_is_and_what_to_do_r7_4() {
        let error = refusal(&hours("UTC", &[(&[Mon], "08:00", "09:00"), (&[Mon], "08:30", "10:00")], &[]));
        let text = "weekly[1]: a span overlaps another one of the same day; join them or move one";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn the_example_of_the_document_is_accepted_r7_4() {
        const DOCUMENT: &str = include_str!("../../../docs/business.md");
        let example = DOCUMENT.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let hours: Hours = serde_json::from_str(example).unwrap();
        assert!(Schedule::new(&hours).is_ok());
        assert_eq!(serde_json::to_value(&hours).unwrap(), serde_json::from_str::<serde_json::Value>(example).unwrap());
    }

    const ZONES: [&str; 15] = [
        "UTC",
        "Asia/Kathmandu",
        "America/New_York",
        "Europe/Berlin",
        "Europe/Dublin",
        "Australia/Lord_Howe",
        "Pacific/Chatham",
        "Africa/Casablanca",
        "Africa/Cairo",
        "America/Havana",
        "America/Sao_Paulo",
        "Antarctica/Troll",
        "Pacific/Apia",
        "Pacific/Kwajalein",
        "America/St_Johns",
    ];
    /// Zones whose offset has been the same since 2000, in milliseconds.
    const STEADY: [(&str, i64); 4] = [
        ("Asia/Kathmandu", 20_700_000),
        ("Asia/Tokyo", 32_400_000),
        ("Pacific/Honolulu", -36_000_000),
        ("Etc/GMT+12", -43_200_000),
    ];

    fn clock(minute: u16) -> String {
        format!("{:02}:{:02}", minute / 60, minute % 60)
    }

    /// Valid hours: each entry that would make them invalid is left out. Exceptions lie within 20 days of `around`.
    fn valid(zone: &'static str, around: i64) -> impl Strategy<Value = Hours> {
        // Half of the times are at night, where clocks change.
        let minute = || prop_oneof![0..240_u16, 0..1440_u16].boxed();
        let times = move || (minute(), prop_oneof![Just(1440), minute()]).prop_map(|(o, c)| (clock(o), clock(c)));
        let days = proptest::sample::subsequence(Weekday::ALL.to_vec(), 1..=7);
        let weekly = proptest::collection::vec((days, times()), 0..6);
        let exceptions = proptest::collection::vec((-20..20_i64, proptest::collection::vec(times(), 0..3)), 0..6);
        (weekly, exceptions).prop_map(move |(weekly, exceptions)| {
            let mut hours = hours(zone, &[], &[]);
            for (days, (opens, closes)) in weekly {
                hours.weekly.push(WeeklySpans { days, opens, closes });
                if Schedule::new(&hours).is_err() {
                    hours.weekly.pop();
                }
            }
            for (day, spans) in exceptions {
                let date = jiff::Timestamp::from_millisecond(around + day * MS_PER_DAY).unwrap();
                let date = TimeZone::UTC.to_datetime(date).date().to_string();
                let spans = spans.iter().map(|(opens, closes)| span(opens, closes)).collect();
                hours.exceptions.push(HoursException { date, spans });
                if Schedule::new(&hours).is_err() {
                    hours.exceptions.pop();
                }
            }
            hours
        })
    }

    /// A moment from 2000 to 2037.
    fn any_moment() -> impl Strategy<Value = i64> {
        946_684_800_000..2_145_916_800_000_i64
    }

    /// A zone, and a moment within two days of a change of its offset.
    fn near_a_change() -> impl Strategy<Value = (&'static str, i64)> {
        let away = -2 * MS_PER_DAY..2 * MS_PER_DAY;
        (proptest::sample::select(&ZONES[..]), any_moment(), away).prop_map(|(zone, moment, away)| {
            let from = jiff::Timestamp::from_millisecond(moment).unwrap();
            let change = TimeZone::get(zone).unwrap().preceding(from).next().map(|change| change.timestamp());
            (zone, change.map_or(moment, jiff::Timestamp::as_millisecond) + away)
        })
    }

    fn zone_hours_and_moment() -> impl Strategy<Value = (Hours, i64)> {
        near_a_change().prop_flat_map(|(zone, now)| (valid(zone, now), Just(now)))
    }

    proptest! {
        #[test]
        fn the_answer_is_constant_until_the_change_and_flips_at_it_r7_4(
            (hours, now) in zone_hours_and_moment(),
            samples in proptest::collection::vec(any::<Index>(), 16),
        ) {
            let schedule = Schedule::new(&hours).unwrap();
            let opening = schedule.at(Timestamp(now));
            let within = if opening.is_open { CLOSES_WITHIN_MS } else { OPENS_WITHIN_MS };
            let end = opening.changes_at.map_or(now + within, |at| at.0);
            prop_assert!(now < end && end <= now + within);
            for sample in samples {
                let between = now + i64::try_from(sample.index(usize::try_from(end - now).unwrap())).unwrap();
                let then = schedule.at(Timestamp(between));
                prop_assert_eq!(then.is_open, opening.is_open);
                if opening.changes_at.is_some() {
                    prop_assert_eq!(then.changes_at, opening.changes_at);
                }
            }
            if opening.changes_at.is_some() {
                prop_assert_eq!(schedule.at(Timestamp(end - 1)), opening);
                prop_assert_eq!(schedule.at(Timestamp(end)).is_open, !opening.is_open);
            }
        }

        #[test]
        fn a_steady_zone_shifts_everything_by_its_offset_r7_4(
            (zone, offset) in proptest::sample::select(&STEADY[..]),
            (hours, now) in any_moment().prop_flat_map(|now| (valid("UTC", now), Just(now))),
        ) {
            let in_utc = Schedule::new(&hours).unwrap().at(Timestamp(now));
            let there = Schedule::new(&Hours { zone: zone.into(), ..hours }).unwrap().at(Timestamp(now - offset));
            prop_assert_eq!(there.is_open, in_utc.is_open);
            prop_assert_eq!(there.changes_at, in_utc.changes_at.map(|at| Timestamp(at.0 - offset)));
        }

        #[test]
        fn no_moment_panics_r7_4(
            (hours, _) in zone_hours_and_moment(),
            now in any::<i64>(),
            near in -40 * MS_PER_DAY..40 * MS_PER_DAY,
        ) {
            let schedule = Schedule::new(&hours).unwrap();
            let (first, last) = (jiff::Timestamp::MIN.as_millisecond(), jiff::Timestamp::MAX.as_millisecond());
            for now in [now, now >> 12, first + near, last + near] {
                schedule.at(Timestamp(now));
            }
        }

        #[test]
        fn no_text_panics_r7_4(text in "\\PC{0,12}", number in "[0-9:-]{0,10}") {
            for text in [text, number] {
                let _ = Schedule::new(&hours(&text, &[], &[]));
                let _ = Schedule::new(&hours("UTC", &[(DAILY, &text, &text)], &[]));
                let _ = Schedule::new(&hours("UTC", &[(DAILY, "00:00", &text)], &[(&text, &[])]));
            }
        }
    }
}
