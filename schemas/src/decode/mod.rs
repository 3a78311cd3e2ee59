//! From a record's bytes to readings, as a source's mapping says (DESIGN §5).
//!
//! ```text
//!  Record ─► load: one pass over JSON, cells or columns ─► Frame (spans by mapped path, unmapped fields)
//!                                                            │ each: once an element, over its parent
//!                                                            ▼
//!            plan: vehicle, times, signals, ids, tags ─► reading | trip payload
//!                 └── any flaw: the whole record ─► reject with its reason and raw bytes
//! ```
//!
//! A value that cannot be used becomes null and is counted; a record that cannot be used is rejected. The reasons are
//! `tombstone`, `empty`, `too_large`, `not_utf8`, `not_json`, `not_object`, `bad_csv`, `no_vehicle`, `bad_vehicle`,
//! `no_time`, `bad_time`, `time_implausible`, `time_in_future`, `no_sensor`, `bad_sensor`, `no_elements`,
//! `no_samples`, `bad_element`, `too_many_elements`.
//!
//! Nothing is allocated for a reading whose vehicle's circumstances have not changed since its last one.

mod columns;
mod csv;
mod frame;
mod intake;
mod make;
mod meta;
mod path;
mod plan;
mod quick;
mod signals;
mod staging;
#[cfg(test)]
mod tests;
mod times;
mod trie;
mod view;

pub use csv::CsvHeader;

use crate::catalogue::Catalogue;
use crate::mapping::{Layout, Limits, Mapping};
use crate::reading::{Accept, IntakeCounts, Origin, TripPayload};
use arrow::record_batch::RecordBatch;
use frame::{Frame, Slot};
use intake::{Intake, rejected};
use make::{Maker, Samples};
use plan::Plan;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;
use view::View;

/// A field of the configuration that cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct MappingError {
    /// Its place in the configuration, such as `sources.telemetry.signals.speed_kmh.unit`.
    pub field: String,
    /// What stood there and what is expected.
    pub problem: String,
}

impl MappingError {
    pub(crate) fn new(field: String, problem: String) -> Self {
        Self { field, problem }
    }
}

/// What a decoder needs to know of its source.
#[derive(Clone, Debug, Default)]
pub struct SourceContext {
    /// Name of the source in the configuration, for messages.
    pub name: Arc<str>,
    pub mapping: Mapping,
    pub limits: Limits,
    /// `replay --at`, µs: the time of trip payloads that bear none. None: 1970-01-01T00:00:00Z.
    pub replay_at: Option<i64>,
}

/// One record as it came.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub origin: &'a Arc<Origin>,
    /// Offset, or line or row from 1.
    pub position: i64,
    /// Kafka's timestamp, µs.
    pub timestamp: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    pub body: Body<'a>,
}

/// A record's value.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// A Kafka record without a value.
    Tombstone,
    Json(&'a [u8]),
    /// A line of delimited text without its line end (one that is there is left out).
    Csv {
        header: &'a Arc<CsvHeader>,
        line: &'a [u8],
    },
    Columns {
        batch: &'a RecordBatch,
        row: usize,
    },
}

impl<'a> Body<'a> {
    /// Of a message's value: delimited text where the source has a header, else JSON.
    pub fn of_message(value: Option<&'a [u8]>, header: Option<&'a Arc<CsvHeader>>) -> Self {
        match (value, header) {
            (None, _) => Body::Tombstone,
            (Some(line), Some(header)) => Body::Csv { header, line },
            (Some(json), None) => Body::Json(json),
        }
    }
}

/// Why a record is rejected. (Boxed, so that a good record's way does not carry room for it.)
#[derive(Debug)]
pub(crate) struct Flaw(Box<(&'static str, String)>);

impl Flaw {
    #[cold]
    fn new(reason: &'static str, detail: impl FnOnce() -> String) -> Self {
        Self(Box::new((reason, detail())))
    }

    /// The same with this before its detail.
    #[cold]
    fn within(mut self, place: &str) -> Self {
        self.0.1.insert_str(0, place);
        self
    }
}

/// Decodes the records of one source; one a worker, with its own buffers.
#[derive(Clone, Debug)]
pub struct Decoder {
    plan: Plan,
    intake: Intake,
    maker: Maker,
    /// Trips of a record, held until its last element is known to be good.
    trips: Vec<TripPayload>,
    unmapped: Option<BTreeMap<String, u64>>,
}

/// What a good record came to.
#[derive(Clone, Copy, Default)]
struct Tally {
    readings: i64,
    invalid: i64,
}

impl Decoder {
    /// Compiles the source's mapping.
    ///
    /// # Errors
    /// [`MappingError`] for the first field that cannot be used.
    pub fn new(ctx: &SourceContext, catalogue: &Arc<Catalogue>) -> Result<Self, MappingError> {
        let (plan, intake) = Intake::new(plan::compile(ctx, catalogue)?);
        Ok(Self { plan, intake, maker: Maker::default(), trips: Vec::new(), unmapped: None })
    }

    /// Decodes one record: its readings, its trip or its rejection go to `out`, and `counts` gains `records`,
    /// `decoded` or `rejected`, `readings` (one for a trip payload) and `invalid_values`.
    pub fn decode(&mut self, record: &Record<'_>, counts: &mut IntakeCounts, out: &mut impl Accept) {
        self.decode_ahead(record, counts, out);
        self.flush(out);
    }

    /// The same for one of many records: its readings may go to `out` with later ones, with [`Decoder::flush`] at the
    /// latest. In that way nobody waits for memory where vehicles take turns.
    #[inline]
    pub fn decode_ahead(&mut self, record: &Record<'_>, counts: &mut IntakeCounts, out: &mut impl Accept) {
        counts.records += 1;
        let before = self.maker.staged.len();
        let mut tally = Tally::default();
        match self.attempt(record, &mut tally) {
            Ok(()) => {
                counts.decoded += 1;
                counts.readings += tally.readings;
                counts.invalid_values += tally.invalid;
                if !self.trips.is_empty() {
                    self.trips.drain(..).for_each(|trip| out.trip(trip));
                }
                if self.maker.staged.len() >= staging::AHEAD {
                    self.flush(out);
                }
            }
            Err(flaw) => {
                self.maker.staged.truncate(before);
                self.trips.clear();
                counts.rejected += 1;
                out.reject(rejected(record, flaw));
            }
        }
    }

    /// Lets all readings go to `out` that are still here.
    pub fn flush(&mut self, out: &mut impl Accept) {
        self.maker.staged.flush(self.plan.width, out);
    }

    /// The record's event time (of an expanded record its first element's, of a trip payload the record's), µs;
    /// None where [`Decoder::decode`] would find none, or one for which it rejects the record: a clock that is wrong by a year
    /// must not make its partition look as if it were ahead of all others. Counts and emits nothing.
    pub fn peek_time(&mut self, record: &Record<'_>) -> Option<i64> {
        let Decoder { plan, intake, .. } = self;
        let own = intake.load(plan, record, false).ok()?;
        let data = own.unwrap_or(&intake.scratch);
        let mut view = View { record, data, outer: &intake.outer, inner: None };
        if let Some((slot, name)) = &plan.each {
            let first = *make::elements(plan, &view, *slot, name, "no_elements").ok()?.first()?;
            make::scan_element(&mut intake.trie, &mut intake.inner, data, first, false, name, 0).ok()?;
            view.inner = Some(&intake.inner);
        }
        match plan.layout {
            Layout::Trip => make::trip_time(plan, &view).ok().map(|(time, _)| time),
            _ => make::moment_time(plan, &view).ok().map(|(time, _)| time),
        }
    }

    /// Whether to count the fields that no mapping names (for `drivetrain check`); clears the counts.
    pub fn track_unmapped(&mut self, on: bool) {
        self.unmapped = on.then(BTreeMap::new);
    }

    /// The fields that no mapping names, by path, and in how many places they were seen; of a trip's samples with
    /// the array's name and `[]` before them.
    pub fn unmapped(&self) -> impl Iterator<Item = (&str, u64)> {
        self.unmapped.iter().flatten().map(|(name, n)| (name.as_str(), *n))
    }

    #[inline(always)]
    fn attempt(&mut self, record: &Record<'_>, tally: &mut Tally) -> Result<(), Flaw> {
        let tags = self.plan.tags || self.unmapped.is_some();
        let own = self.intake.load(&self.plan, record, tags)?;
        match (&self.plan.each, self.plan.layout) {
            (None, Layout::Wide | Layout::Long) => {
                let Decoder { plan, intake, maker, .. } = self;
                let data = own.unwrap_or(&intake.scratch);
                let view = View { record, data, outer: &intake.outer, inner: None };
                let plain =
                    plan.plain.is_some_and(|places| maker.plain_moment(plan, &places, &view, &mut tally.invalid));
                if !plain {
                    maker.moment(plan, &view, 0, &mut tally.invalid)?;
                }
                tally.readings = 1;
            }
            (None, Layout::Trip) => self.trip(record, own, None, tally)?,
            (Some(_), _) => self.elements(record, own, tally)?,
        }
        if let Some(counts) = &mut self.unmapped {
            count(counts, &self.intake.outer);
        }
        Ok(())
    }

    /// Each element of an expanded record.
    fn elements(&mut self, record: &Record<'_>, own: Option<&str>, tally: &mut Tally) -> Result<(), Flaw> {
        let Some((slot, name)) = self.plan.each.clone() else { return Ok(()) };
        let spans = {
            let data = own.unwrap_or(&self.intake.scratch);
            let view = View { record, data, outer: &self.intake.outer, inner: None };
            make::elements(&self.plan, &view, slot, &name, "no_elements")?
        };
        for (i, span) in spans.into_iter().enumerate() {
            let named = |flaw: Flaw| flaw.within(&format!("{name}[{i}]: "));
            let tags = self.plan.tags || self.unmapped.is_some();
            let Decoder { plan, intake, maker, .. } = self;
            let data = own.unwrap_or(&intake.scratch);
            make::scan_element(&mut intake.trie, &mut intake.inner, data, span, tags, &name, i)?;
            if plan.layout == Layout::Trip {
                self.trip(record, own, Some(span), tally).map_err(named)?;
            } else {
                let view = View { record, data, outer: &intake.outer, inner: Some(&intake.inner) };
                maker.moment(plan, &view, i as u32, &mut tally.invalid).map_err(named)?;
                tally.readings += 1;
            }
            if let Some(counts) = &mut self.unmapped {
                count(counts, &self.intake.inner);
            }
        }
        Ok(())
    }

    /// One trip payload: the record itself, or the element at `span`.
    fn trip(
        &mut self,
        record: &Record<'_>,
        own: Option<&str>,
        span: Option<Slot>,
        tally: &mut Tally,
    ) -> Result<(), Flaw> {
        let Decoder { plan, intake, maker, trips, unmapped } = self;
        let data = own.unwrap_or(&intake.scratch);
        let view = View { record, data, outer: &intake.outer, inner: span.map(|_| &intake.inner) };
        let mut samples = Samples { trie: &mut intake.samples, frame: &mut intake.sample, unmapped: unmapped.as_mut() };
        let payload = span.map_or(data, |span| span.text(data));
        trips.push(maker.trip(plan, &view, payload, &mut samples, &mut tally.invalid)?);
        tally.readings += 1;
        Ok(())
    }
}

/// Counts the unmapped fields of a frame.
fn count(counts: &mut BTreeMap<String, u64>, frame: &Frame) {
    for tag in &frame.tags {
        *counts.entry(frame.name(tag).to_string()).or_default() += 1;
    }
}
