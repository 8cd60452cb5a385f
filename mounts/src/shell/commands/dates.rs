//! Times as tools print them. The shell's time zone is UTC.

use cairn_protocol::Timestamp;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY: i64 = 86_400;

/// A time of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    pub(crate) month: usize,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

impl Date {
    /// The date of a time: Howard Hinnant's `civil_from_days`.
    pub(crate) fn of(time: Timestamp) -> Self {
        let days = time.seconds().div_euclid(DAY);
        let seconds = time.seconds().rem_euclid(DAY);
        let shifted = days.saturating_add(719_468);
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: year + era * 400 + i64::from(month <= 2),
            month: usize::try_from(month - 1).unwrap_or(0).min(11),
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: seconds / 3_600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    /// As `ls -l` shows it: with the year when it is half a year away from `now`.
    pub(crate) fn short(time: Timestamp, now: Timestamp) -> String {
        let date = Self::of(time);
        let age = now.seconds().saturating_sub(time.seconds());
        let month = MONTHS[date.month];
        // Half of the average year of the Gregorian calendar.
        if (0..=31_556_952 / 2).contains(&age) {
            return format!("{month} {:2} {:02}:{:02}", date.day, date.hour, date.minute);
        }
        format!("{month} {:2}  {}", date.day, date.year)
    }

    /// With nanoseconds and zone, as `stat` and `ls --full-time` show it.
    pub(crate) fn full(time: Timestamp) -> String {
        let date = Self::of(time);
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} +0000",
            date.year,
            date.month + 1,
            date.day,
            date.hour,
            date.minute,
            date.second,
            time.nanos(),
        )
    }

    /// Date and minute, as `--time-style=long-iso` shows it.
    pub(crate) fn long_iso(time: Timestamp) -> String {
        let date = Self::of(time);
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}",
            date.year,
            date.month + 1,
            date.day,
            date.hour,
            date.minute,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| Timestamp::new(seconds, 5).unwrap();
        assert_eq!(Date::full(at(0)), "1970-01-01 00:00:00.000000005 +0000");
        assert_eq!(
            Date::full(at(951_782_400)),
            "2000-02-29 00:00:00.000000005 +0000"
        );
        assert_eq!(Date::full(at(-1)), "1969-12-31 23:59:59.000000005 +0000");
        assert_eq!(Date::long_iso(at(1_764_142_000)), "2025-11-26 07:26");
        assert_eq!(Date::short(at(0), at(100)), "Jan  1 00:00");
        assert_eq!(Date::short(at(0), at(1_000_000_000)), "Jan  1  1970");
    }
}
