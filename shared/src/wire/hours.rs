//! Opening hours of a business, as clients send and receive them.

use serde::{Deserialize, Serialize};

/// When a business is open. Without entries in `weekly` and `exceptions` it never is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Hours {
    /// The time zone of all dates and times here: a name of the IANA time zone database.
    #[schema(example = "Asia/Kathmandu")]
    pub zone: String,
    /// Whether cases are assigned automatically only while the business is open. If not, the hours are only shown.
    #[serde(default)]
    pub is_enforced: bool,
    /// The spans of each week. Entries that name the same day add up; at most 4 spans open on a day.
    #[serde(default)]
    pub weekly: Vec<WeeklySpans>,
    /// Dates whose spans differ from `weekly`; at most 100, each date once.
    #[serde(default)]
    pub exceptions: Vec<HoursException>,
}

/// One span on each of several days of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WeeklySpans {
    /// The days on which the span opens: at least one, each once.
    pub days: Vec<Weekday>,
    /// The local time at which the span opens, `HH:MM` from 00:00 to 23:59.
    #[schema(example = "10:00")]
    pub opens: String,
    /// The local time at which the span closes, `HH:MM` from 00:00 to 24:00. A time before `opens` is on the next day;
    /// the time of `opens` is refused.
    #[schema(example = "18:00")]
    pub closes: String,
}

/// The spans that open on one date, instead of those in `weekly`. A span of the date before that closes after midnight
/// is not affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HoursException {
    /// The date, `YYYY-MM-DD`.
    #[schema(example = "2026-10-20")]
    pub date: String,
    /// At most 4; without any, no span opens on the date.
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Span {
    /// The local time at which the span opens, `HH:MM` from 00:00 to 23:59.
    #[schema(example = "12:00")]
    pub opens: String,
    /// The local time at which the span closes, `HH:MM` from 00:00 to 24:00. A time before `opens` is on the next day;
    /// the time of `opens` is refused.
    #[schema(example = "14:00")]
    pub closes: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Weekday {
    /// All days of the week, from Monday to Sunday.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];
}

impl Hours {
    /// Open at all times, in UTC, not enforced.
    pub fn always() -> Self {
        let weekly = WeeklySpans { days: Weekday::ALL.to_vec(), opens: "00:00".into(), closes: "24:00".into() };
        Self { zone: "UTC".into(), is_enforced: false, weekly: vec![weekly], exceptions: Vec::new() }
    }
}

impl Default for Hours {
    fn default() -> Self {
        Self::always()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hours_keep_their_json_form_r7_4() {
        let json = json!({
            "zone": "Asia/Kathmandu",
            "is_enforced": true,
            "weekly": [{ "days": ["sun", "mon", "tue", "wed", "thu", "fri"], "opens": "10:00", "closes": "18:00" }],
            "exceptions": [
                { "date": "2026-10-20", "spans": [] },
                { "date": "2026-10-21", "spans": [{ "opens": "12:00", "closes": "14:00" }] },
            ],
        });
        let hours: Hours = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(hours.weekly[0].days[..2], [Weekday::Sun, Weekday::Mon]);
        assert_eq!(serde_json::to_value(hours).unwrap(), json);
    }

    #[test]
    fn all_but_the_zone_may_be_absent_r7_4() {
        let hours: Hours = serde_json::from_value(json!({ "zone": "UTC" })).unwrap();
        assert_eq!(hours, Hours { zone: "UTC".into(), is_enforced: false, weekly: vec![], exceptions: vec![] });
        assert!(serde_json::from_value::<Hours>(json!({})).is_err());
    }

    #[test]
    fn a_day_of_another_spelling_is_refused_r7_4() {
        assert!(serde_json::from_value::<Weekday>(json!("Mon")).is_err());
        assert!(serde_json::from_value::<Weekday>(json!("monday")).is_err());
    }
}
