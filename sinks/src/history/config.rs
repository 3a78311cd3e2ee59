//! The section `[history]` of the configuration.

use crate::housekeeping::RetentionConfig;
use crate::units::{ByteSize, Span};
use serde::{Deserialize, Serialize};

/// Which readings the history keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepReadings {
    /// All of them.
    #[default]
    All,
    /// None: the table `readings` stays empty, and `verify` cannot recompute from it.
    None,
}

/// How the Parquet history is written.
///
/// ```toml
/// [history]
/// readings = "all"
/// roll_bytes = "128MB"
/// roll_after = "60s"
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// `all` (default) or `none`: whether the table `readings` is kept.
    pub readings: KeepReadings,
    /// A file is published when it has this size; `"128MB"` by default.
    pub roll_bytes: ByteSize,
    /// A file is published when its first row is this old; `"60s"` by default. The history trails the topics by about
    /// this long.
    pub roll_after: Span,
    /// Everything is published when no row has come for this long; `"10s"` by default.
    pub idle_after: Span,
    /// Memory for rows that wait to be written, over all tables and dates; `"64MB"` by default.
    pub buffer: ByteSize,
    /// Level of zstd for `readings` and `windows`, 1 (default) to 22: larger is smaller and slower. The other tables
    /// are small and always have level 3.
    pub compression_level: i32,
    /// Readings in a row group; 131072 by default.
    pub row_group_rows: usize,
    /// Files written at once; the oldest is published when one more is needed. 32 by default.
    pub max_open_files: usize,
    /// `drivetrain compact` leaves this much of the past to `sql --as-of`, by the clock of the epochs, back from the
    /// newest; `"7d"` by default. Older changes that cancel each other go.
    pub as_of: Span,
    /// How long it is recorded which input each epoch had and when it ended, for `--as-of TIME` and `replay --bindings`;
    /// `"7d"` by default, and never shorter than `as_of`; some 230 MB a day with four busy partitions.
    pub bindings: Span,
    /// Files that compaction has replaced, or retention taken away, are deleted this much later, for the sake of readers
    /// that have begun before; `"10m"` by default.
    pub grace: Span,
    /// How long `drivetrain compact` keeps the days of each table.
    pub retention: RetentionConfig,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            readings: KeepReadings::All,
            roll_bytes: ByteSize(128_000_000),
            roll_after: Span(60_000_000),
            idle_after: Span(10_000_000),
            buffer: ByteSize(64_000_000),
            compression_level: 1,
            row_group_rows: 131_072,
            max_open_files: 32,
            as_of: Span(7 * 86_400_000_000),
            bindings: Span(7 * 86_400_000_000),
            grace: Span(600_000_000),
            retention: RetentionConfig::default(),
        }
    }
}

impl HistoryConfig {
    /// Checks the values. The error names the field, what stood there and what may stand there.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=22).contains(&self.compression_level) {
            return Err(format!("history.compression_level: {} is not 1 to 22", self.compression_level));
        }
        if self.row_group_rows == 0 || self.row_group_rows > 1 << 24 {
            return Err(format!("history.row_group_rows: {} is not 1 to 16777216", self.row_group_rows));
        }
        if self.max_open_files == 0 {
            return Err("history.max_open_files: 0 is not at least 1".to_string());
        }
        for (name, size) in [("roll_bytes", self.roll_bytes), ("buffer", self.buffer)] {
            if size.0 == 0 {
                return Err(format!("history.{name}: 0 is not at least 1 byte"));
            }
        }
        for (name, span) in [("roll_after", self.roll_after), ("idle_after", self.idle_after)] {
            if span.0 <= 0 {
                return Err(format!("history.{name}: {span} is not longer than nothing"));
            }
        }
        for (name, span) in [("as_of", self.as_of), ("grace", self.grace), ("bindings", self.bindings)] {
            if span.0 < 0 {
                return Err(format!("history.{name}: {span} is less than nothing"));
            }
        }
        Ok(())
    }
}
