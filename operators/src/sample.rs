//! What a kernel is given: one reading, in its vehicle's order of time.

use drivetrain_schemas::reading::{Meta, NULL};
use std::sync::Arc;

/// One reading of a vehicle, at or after the one before.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Event time, µs.
    pub at: i64,
    /// Sample interval of its source, µs.
    pub interval: i64,
    pub meta: &'a Arc<Meta>,
    /// By signal index; [`NULL`] where not known.
    pub values: &'a [i64],
}

impl Sample<'_> {
    /// The value of a signal; [`NULL`] where not known.
    #[inline]
    pub fn value(&self, signal: u16) -> i64 {
        self.values.get(usize::from(signal)).copied().unwrap_or(NULL)
    }

    /// The value of a signal of type text.
    pub fn text(&self, signal: u16) -> Option<&Arc<str>> {
        self.meta.texts.iter().find(|(s, _)| *s == signal).map(|(_, text)| text)
    }

    /// Beyond this time without a sample an excursion or a state is not taken to have lasted: three sample
    /// intervals, at least 5 s.
    #[inline]
    pub fn gap(&self) -> i64 {
        self.interval.saturating_mul(3).max(5_000_000)
    }
}
