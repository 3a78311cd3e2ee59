//! `[history.retention]`: how long each table's days are kept.

use crate::history::DateKey;
use drivetrain_schemas::table::TableId;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Days of a year, as `"1y"` means it.
const YEAR: i64 = 365;

/// How long days are kept: `"30d"`, `"1y"` (365 days) or `"forever"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    #[default]
    Forever,
    /// The newest day, and so many before it.
    Days(i64),
}

/// Retention by table. The tables without a day (`driver_scores`, `fleet_aggregates`, `reference_problems`, `intake`)
/// are small and are kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// `"30d"` by default.
    pub readings: Keep,
    /// `"1y"` by default.
    pub windows: Keep,
    /// `"forever"` by default, as all that follow.
    pub events: Keep,
    pub trips: Keep,
    pub anomalies: Keep,
    pub quality: Keep,
    pub late: Keep,
    pub rejects: Keep,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        let keep = Self::forever();
        Self { readings: Keep::Days(30), windows: Keep::Days(YEAR), ..keep }
    }
}

impl RetentionConfig {
    /// Nothing is ever taken away.
    pub fn forever() -> Self {
        let keep = Keep::Forever;
        Self {
            readings: keep,
            windows: keep,
            events: keep,
            trips: keep,
            anomalies: keep,
            quality: keep,
            late: keep,
            rejects: keep,
        }
    }

    /// What holds for a table.
    pub fn of(&self, table: TableId) -> Keep {
        match table {
            TableId::Readings => self.readings,
            TableId::Windows => self.windows,
            TableId::Events => self.events,
            TableId::Trips => self.trips,
            TableId::Anomalies => self.anomalies,
            TableId::Quality => self.quality,
            TableId::Late => self.late,
            TableId::Rejects => self.rejects,
            TableId::DriverScores | TableId::FleetAggregates | TableId::ReferenceProblems | TableId::Intake => {
                Keep::Forever
            }
        }
    }
}

impl Keep {
    /// Parses what a person writes; `None` when it is none of the forms.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "forever" {
            return Some(Keep::Forever);
        }
        let (number, days) = match (text.strip_suffix('d'), text.strip_suffix('y')) {
            (Some(number), _) => (number, 1),
            (_, Some(number)) => (number, YEAR),
            _ => return None,
        };
        let number = number.trim_end().parse::<i64>().ok().filter(|n| (1..=10_000).contains(n))?;
        Some(Keep::Days(number * days))
    }

    /// The first day that is kept; `None`: all are.
    pub(super) fn first_kept(self, newest: DateKey) -> Option<DateKey> {
        match self {
            Keep::Forever => None,
            Keep::Days(days) => Some(newest.minus(days)),
        }
    }
}

impl std::fmt::Display for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Keep::Forever => f.write_str("forever"),
            Keep::Days(days) if days % YEAR == 0 => write!(f, "{}y", days / YEAR),
            Keep::Days(days) => write!(f, "{days}d"),
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Keep::parse(&text).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is not a retention such as \"30d\", \"1y\" or \"forever\""))
        })
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_writes() {
        for (text, keep) in [("30d", Keep::Days(30)), ("1y", Keep::Days(365)), ("forever", Keep::Forever)] {
            assert_eq!(Keep::parse(text), Some(keep));
            assert_eq!(keep.to_string(), text);
        }
        for text in ["", "d", "0d", "-1d", "30", "30h", "ever", "99999999999d"] {
            assert_eq!(Keep::parse(text), None, "{text}");
        }
        let newest = DateKey::parse("2026-05-31").unwrap();
        assert_eq!(Keep::Days(30).first_kept(newest).unwrap().text(), "2026-05-01");
        assert_eq!(Keep::Forever.first_kept(newest), None);
        let error = serde_json::from_str::<Keep>("\"soon\"").unwrap_err().to_string();
        assert!(error.contains("\"30d\""), "{error}");
    }
}
