//! The job's wall clock: recorded with each epoch, shown in logs, and never part of a result.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, µs since 1970 UTC.
#[allow(clippy::disallowed_methods, reason = "the one place that asks")]
pub fn wall_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
