//! `--as-of`: an epoch, or a time that the recorded wall times of the epochs turn into one.

use super::QueryError;
use drivetrain_sinks::manifest::{epoch_at, wall_of};
use drivetrain_sinks::store::Storage;

/// The epoch that `--as-of` means: a number is one; a time means the last epoch that ended at or before it.
///
/// # Errors
/// [`QueryError::Usage`] when it is neither, or when no epoch had ended by then.
pub(super) fn resolve(storage: impl Into<Storage>, text: &str) -> Result<i64, QueryError> {
    let storage = &storage.into();
    if let Ok(epoch) = text.parse::<i64>() {
        return Ok(epoch);
    }
    let time = drivetrain_schemas::time::parse_rfc3339(text).map_err(|_| {
        QueryError::Usage(format!("--as-of {text:?} is neither an epoch nor a time such as 2026-05-01T12:00:00Z"))
    })?;
    let last = epoch_at(storage, time).map_err(|e| QueryError::Failed(e.to_string()))?;
    last.ok_or_else(|| {
        let first = wall_of(storage, None).unwrap_or_default();
        let first = first.map_or("this directory records no epoch's time".to_string(), |wall| {
            format!("the first one that is recorded ended at {}", drivetrain_schemas::time::format_rfc3339(wall))
        });
        QueryError::Usage(format!("--as-of {text}: no epoch had ended by then; {first}"))
    })
}
