//! The order of one vehicle's readings (DESIGN §4): what is new goes straight through the kernels; what is older, but
//! within the horizon, rewinds them; what is older still is late.
//!
//! ```text
//!  the vehicle's readings of one epoch
//!    │ sort by (at, content), drop duplicates
//!    ├── before the floor ───────────────────────────► late
//!    ├── all behind the newest ──► log ──► kernels ──► facts
//!    └── else: rewind, once
//!          log from the newest snapshot before them ─┬─► kernels ─► old facts ─┐
//!          the same merged with them ─────► new log ─┴─► kernels ─► new facts ─┴─► the difference
//! ```
//!
//! Contract: within the horizon, the sum of all facts said up to any epoch is that of the kernels run once over all
//! readings accepted so far, sorted and without duplicates, and closed up to the level of silence; whatever the epochs
//! and the order within them.
//!
//! The floor is judged at the end of an epoch and holds for the next one: the newest time less `hot_horizon`, or
//! behind the last reading that had to be dropped for the bound `hot_readings`; a function of what each epoch held,
//! and not of how it was batched or of workers.

mod kept;
mod log;
mod outcome;
mod row;
#[cfg(test)]
mod tests;

pub use kept::{Packed, split_key};
pub use outcome::Outcome;
pub use row::{Incoming, OwnedReading};

use crate::config::KernelConfig;
use crate::facts::{Facts, VehicleFact};
use crate::sample::Sample;
use crate::{quality, vehicle};
use drivetrain_schemas::prefetch::{prefetch, prefetch_slice};
use drivetrain_schemas::reading::ReadingBatch;
use kept::{Gone, Stored};
use log::Segment;
use outcome::Mark;
use row::{Decoded, RowRef};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

/// All that is kept of one vehicle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VehicleState {
    /// After all readings.
    kernel: vehicle::State,
    /// Never empty. The log goes back to at least the floor.
    segments: VecDeque<Box<Segment>>,
    /// Values of the newest reading, where it stands in the order within its instant.
    last: Vec<i64>,
    /// `i64::MIN` before the first reading.
    newest: i64,
    /// Readings before this are late.
    floor: i64,
    /// The first time to which the log still goes back.
    kept_from: i64,
    /// Up to when silence has been said.
    silenced: Option<i64>,
    /// The watermark at which there is more to say.
    deadline: Option<i64>,
    /// Counts, which no rewind touches; None where they are switched off.
    quality: Option<quality::State>,
    /// The serial of the next segment.
    serials: u64,
    /// Records that the next checkpoint takes back.
    gone: Vec<Gone>,
}

impl VehicleState {
    pub fn new(cfg: &KernelConfig, vehicle: Arc<str>) -> Self {
        let kernel = vehicle::State::new(cfg, vehicle);
        VehicleState {
            segments: VecDeque::from([Box::new(Segment::new(kernel.clone(), Stored::new(0)))]),
            kernel,
            last: vec![i64::MIN; cfg.width()],
            newest: i64::MIN,
            floor: i64::MIN,
            kept_from: i64::MIN,
            silenced: None,
            deadline: None,
            quality: cfg.quality.as_ref().map(quality::State::new),
            serials: 1,
            gone: Vec::new(),
        }
    }

    pub fn vehicle(&self) -> &Arc<str> {
        self.kernel.vehicle()
    }

    /// Event time of the newest reading; `i64::MIN` before the first.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// What the vehicle is doing.
    pub fn fact(&self) -> VehicleFact {
        vehicle::fact(&self.kernel)
    }

    /// Asks for the memory that [`VehicleState::apply`] is going to want, in [`VehicleState::ASKS`] steps with time between
    /// them: each reads only what the one before has asked for, and the first nothing.
    #[inline]
    pub fn ask(&self, step: usize) {
        match step {
            0 => prefetch(self),
            1 => {
                prefetch_slice(&self.last);
                self.kernel.ask();
                self.segments.back().into_iter().for_each(prefetch);
            }
            2 => self.segments.back().into_iter().for_each(|segment| prefetch(&**segment)),
            _ => self.segments.back().into_iter().for_each(|segment| segment.ask()),
        }
    }

    /// Steps of [`VehicleState::ask`].
    pub const ASKS: usize = 4;

    /// Takes all of this vehicle's readings of one epoch, in any order. `incoming` is left in an unspecified order.
    pub fn apply(
        &mut self,
        cfg: &KernelConfig,
        batches: &[ReadingBatch],
        incoming: &mut Vec<Incoming>,
        out: &mut Outcome,
    ) {
        let ascending = incoming.windows(2).all(|pair| pair[0].at(batches) < pair[1].at(batches));
        if !ascending {
            sort(batches, incoming);
        }
        let late = incoming.partition_point(|i| i.at(batches) < self.floor);
        let said = (out.quality.len(), self.silenced);
        self.say_quality(cfg, -1, out);
        self.count_quality(batches, incoming, late);
        for i in incoming.drain(..late) {
            let record_time = batches[i.batch as usize].heads[i.row as usize].record_time;
            out.too_late(cfg, &i.row(batches), record_time, self.floor);
        }
        if !ascending {
            drop_duplicates(batches, incoming, out);
        }
        self.take_in(cfg, batches, incoming, out);
        self.settle_quality(cfg, batches, said, out);
        self.schedule(cfg);
    }

    /// Takes what is neither late nor there twice.
    fn take_in(&mut self, cfg: &KernelConfig, batches: &[ReadingBatch], incoming: &[Incoming], out: &mut Outcome) {
        let Some(first) = incoming.first() else { return };
        let mark = Mark::of(&out.facts);
        let level = self.silenced;
        if let Some(level) = level {
            vehicle::close(cfg, &self.kernel, level, &mut out.facts);
            mark.negate(&mut out.facts);
        }
        let straight = self.is_behind(&first.row(batches));
        let changed = if straight {
            for i in incoming.iter() {
                self.push(cfg, &i.row(batches), &mut out.facts);
            }
            accept(batches, incoming, out);
            true
        } else {
            self.rewind(cfg, batches, incoming, out)
        };
        if changed {
            self.silenced = None;
        } else if let Some(level) = level {
            vehicle::close(cfg, &self.kernel, level, &mut out.facts);
        }
        if straight && level.is_none() {
            mark.consolidate_open(&mut out.facts);
        } else {
            mark.consolidate(&mut out.facts);
        }
        self.floor = self.newest.saturating_sub(cfg.time.hot_horizon).max(self.kept_from).max(self.floor);
    }

    /// Counts what has come, before duplicates are dropped; the first `late` are late.
    fn count_quality(&mut self, batches: &[ReadingBatch], incoming: &[Incoming], late: usize) {
        let Some(quality) = &mut self.quality else { return };
        for (i, incoming) in incoming.iter().enumerate() {
            let row = incoming.row(batches);
            if i < late {
                quality.late(row.values, &row.meta.texts);
                continue;
            }
            quality.arrived(row.at, row.values, &row.meta.texts);
            let invalid = batches[incoming.batch as usize].invalid_of(incoming.row);
            invalid.for_each(|signal| quality.invalid(row.at, signal));
        }
    }

    /// Says with `diff` the hours that silence has closed.
    fn say_quality(&self, cfg: &KernelConfig, diff: isize, out: &mut Outcome) {
        if let (Some(params), Some(quality), Some(level)) = (&cfg.quality, &self.quality, self.silenced) {
            quality.close(params, cfg.time.patience, self.kernel.vehicle(), level, diff, &mut out.quality);
        }
    }

    /// Takes out the duplicates, says the hours that are over, and those that silence still closes. `said`: where the
    /// vehicle's changes begin, and the silence that was taken back before.
    fn settle_quality(
        &mut self,
        cfg: &KernelConfig,
        batches: &[ReadingBatch],
        said: (usize, Option<i64>),
        out: &mut Outcome,
    ) {
        let (Some(params), Some(quality)) = (&cfg.quality, &mut self.quality) else { return out.repeated.clear() };
        for incoming in out.repeated.drain(..) {
            let row = incoming.row(batches);
            quality.duplicate(row.at, row.values, &row.meta.texts);
        }
        quality.settle(params, self.kernel.vehicle(), self.floor, &mut out.quality);
        self.say_quality(cfg, 1, out);
        if said.1.is_some() {
            outcome::consolidate(&mut out.quality, said.0);
        }
    }

    fn schedule(&mut self, cfg: &KernelConfig) {
        let level = self.silenced.unwrap_or(i64::MIN);
        let quality = self.quality.as_ref().and_then(|quality| quality.deadline(cfg.time.patience, level));
        self.deadline = vehicle::deadline(cfg, &self.kernel, level).into_iter().chain(quality).min();
    }

    /// Says, as closed, what has ended `patience` before `watermark` or earlier, if it hasn't been said. The next
    /// reading takes it back. Deadlines up to `watermark` are thereby done with.
    pub fn silence(&mut self, cfg: &KernelConfig, watermark: i64, out: &mut Outcome) {
        if self.newest == i64::MIN || self.silenced.is_some_and(|level| level >= watermark) {
            return;
        }
        let (mark, said) = (Mark::of(&out.facts), out.quality.len());
        if let Some(level) = self.silenced {
            vehicle::close(cfg, &self.kernel, level, &mut out.facts);
            mark.negate(&mut out.facts);
        }
        self.say_quality(cfg, -1, out);
        vehicle::close(cfg, &self.kernel, watermark, &mut out.facts);
        mark.consolidate(&mut out.facts);
        self.silenced = Some(watermark);
        self.say_quality(cfg, 1, out);
        outcome::consolidate(&mut out.quality, said);
        self.schedule(cfg);
    }

    /// Says everything open as closed: the end of the input.
    pub fn finish(&mut self, cfg: &KernelConfig, out: &mut Outcome) {
        self.silence(cfg, i64::MAX, out);
    }

    /// The watermark at which [`VehicleState::silence`] has something to say.
    pub fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    /// Whether a reading stands behind all others.
    fn is_behind(&self, row: &RowRef<'_>) -> bool {
        match row.at.cmp(&self.newest) {
            Ordering::Greater => true,
            Ordering::Less => false,
            // Texts are not kept beside the log; equal values go the long way.
            Ordering::Equal => row.values > self.last.as_slice(),
        }
    }

    /// Appends a reading that stands behind all others.
    #[inline]
    fn push(&mut self, cfg: &KernelConfig, row: &RowRef<'_>, facts: &mut Facts) {
        if row.at > self.newest {
            self.make_room(cfg, row.at);
        }
        let Some(segment) = self.segments.back_mut() else { return };
        let interval = segment.append(cfg, row, self.kernel.values());
        let sample = Sample { at: row.at, interval, meta: row.meta, values: row.values };
        vehicle::step(cfg, &mut self.kernel, &sample, facts);
        self.newest = row.at;
        self.last.copy_from_slice(row.values);
    }

    /// Begins another segment when the last one spans the horizon (or half of the bound on readings), and drops those
    /// that nothing can rewind any more.
    fn make_room(&mut self, cfg: &KernelConfig, at: i64) {
        let Some(last) = self.segments.back() else { return };
        let spans = last.count > 0 && at.saturating_sub(last.first_at) >= cfg.time.hot_horizon;
        let full = last.count >= cfg.time.hot_readings.div_ceil(2);
        if !(spans || full) {
            return;
        }
        let stored = Stored::new(self.serials);
        self.serials += 1;
        self.segments.push_back(Box::new(Segment::new(self.kernel.clone(), stored)));
        let horizon = at.saturating_sub(cfg.time.hot_horizon);
        let mut kept: usize = self.segments.iter().map(|s| s.count).sum();
        while self.segments.len() > 1
            && let Some(first) = self.segments.front()
            && (first.last_at < horizon || kept > cfg.time.hot_readings)
        {
            kept -= first.count;
            self.kept_from = self.kept_from.max(first.last_at.saturating_add(1));
            let dropped = self.segments.pop_front();
            self.gone.extend(dropped.map(|s| s.stored.drop()).filter(|gone| !gone.is_nothing()));
        }
    }

    /// Runs the kernels again from the newest snapshot before the first of `incoming`, and says the difference.
    /// Returns whether anything has changed.
    fn rewind(
        &mut self,
        cfg: &KernelConfig,
        batches: &[ReadingBatch],
        incoming: &[Incoming],
        out: &mut Outcome,
    ) -> bool {
        let Some(first) = incoming.first().map(|i| i.at(batches)) else { return false };
        let from = self.segments.iter().rposition(|s| s.first_at <= first).unwrap_or(0);
        let mut old = Decoded::new(cfg.width());
        self.segments.iter().skip(from).for_each(|segment| segment.decode(&mut old));
        let merged = merge(batches, incoming, &old, out);
        if !merged.changed {
            return false;
        }
        let Some(snapshot) = self.segments.get(from).map(|s| s.snapshot.clone()) else { return false };
        let mark = Mark::of(&out.facts);
        let mut kernel = snapshot.clone();
        for (row, interval) in (0..old.len()).map(|i| old.row(i)) {
            let sample = Sample { at: row.at, interval, meta: row.meta, values: row.values };
            vehicle::step(cfg, &mut kernel, &sample, &mut out.facts);
        }
        mark.negate(&mut out.facts);
        let dropped = self.segments.drain(from + 1..).map(|s| s.stored.drop());
        self.gone.extend(dropped.filter(|gone| !gone.is_nothing()));
        if let Some(segment) = self.segments.back_mut() {
            self.gone.extend(Some(segment.clear()).filter(|gone| !gone.is_nothing()));
        }
        self.newest = snapshot_time(&self.segments);
        self.kernel = snapshot;
        for taken in merged.rows {
            match taken {
                Taken::Old(i) => self.push(cfg, &old.row(i).0, &mut out.facts),
                Taken::New(i) => self.push(cfg, &i.row(batches), &mut out.facts),
            }
        }
        true
    }

    /// Bytes that the log takes, without the snapshots.
    pub fn log_bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes()).sum()
    }
}

/// Time of the last reading before the last segment, whose readings have been taken out.
fn snapshot_time(segments: &VecDeque<Box<Segment>>) -> i64 {
    segments.iter().rev().nth(1).map_or(i64::MIN, |s| s.last_at)
}

fn sort(batches: &[ReadingBatch], incoming: &mut [Incoming]) {
    incoming.sort_unstable_by(|a, b| {
        let (a, b) = (a.row(batches), b.row(batches));
        a.order(&b).then_with(|| a.preference(&b))
    });
}

/// Of sorted readings, keeps the preferred one of equals.
fn drop_duplicates(batches: &[ReadingBatch], incoming: &mut Vec<Incoming>, out: &mut Outcome) {
    incoming.dedup_by(|dropped, kept| {
        let (later, kept) = (dropped.row(batches), kept.row(batches));
        let same = later.order(&kept) == Ordering::Equal;
        if same {
            out.repeated.push(*dropped);
            out.count(later.origin).duplicates += 1;
        }
        same
    });
}

/// Counts readings that nothing stood in the way of.
fn accept(batches: &[ReadingBatch], incoming: &[Incoming], out: &mut Outcome) {
    out.accepted.extend_from_slice(incoming);
    for group in incoming.chunk_by(|a, b| a.batch == b.batch) {
        if let Some(batch) = group.first().and_then(|i| batches.get(i.batch as usize)) {
            out.count(&batch.origin).used += group.len() as i64;
        }
    }
}

enum Taken {
    Old(usize),
    New(Incoming),
}

struct Merged {
    rows: Vec<Taken>,
    changed: bool,
}

/// Merges the log with what is new, both in order; of two duplicates the preferred one stays.
fn merge(batches: &[ReadingBatch], incoming: &[Incoming], old: &Decoded, out: &mut Outcome) -> Merged {
    let mut rows = Vec::with_capacity(old.len() + incoming.len());
    let (mut i, mut changed) = (0, false);
    for new in incoming {
        let row = new.row(batches);
        while i < old.len() && old.row(i).0.order(&row) == Ordering::Less {
            rows.push(Taken::Old(i));
            i += 1;
        }
        let rival = (i < old.len()).then(|| old.row(i).0).filter(|o| o.order(&row) == Ordering::Equal);
        let Some(rival) = rival else {
            changed = true;
            out.accepted.push(*new);
            out.count(row.origin).used += 1;
            rows.push(Taken::New(*new));
            continue;
        };
        out.repeated.push(*new);
        if row.preference(&rival) != Ordering::Less {
            out.count(row.origin).duplicates += 1;
            continue;
        }
        changed = true;
        let counts = out.count(rival.origin);
        counts.used -= 1;
        counts.duplicates += 1;
        out.count(row.origin).used += 1;
        if row.meta != rival.meta {
            out.accepted.push(*new);
            out.swapped.push((rival.owned(), -1));
        }
        rows.push(Taken::New(*new));
        i += 1;
    }
    rows.extend((i..old.len()).map(Taken::Old));
    Merged { rows, changed }
}

/// About how many bytes one vehicle takes that sends a reading each `interval` µs: kernels, snapshots and log, without
/// quantiles, texts and tags.
pub fn memory_per_vehicle(cfg: &KernelConfig, interval: i64) -> usize {
    let width = cfg.width();
    let (copied, shared) = cfg.windows.as_ref().map_or((0, 0), crate::windows::memory);
    let zscore: usize = cfg.zscore.iter().map(|z| 16 * z.window).sum();
    let detectors = 64 * (cfg.range.len() + cfg.zscore.len() + cfg.stuck.len());
    let kernel = size_of::<vehicle::State>() + 8 * width + copied + shared + zscore + detectors + 512;
    let readings = usize::try_from(cfg.time.hot_horizon / interval.max(1)).unwrap_or(usize::MAX);
    let readings = readings.min(cfg.time.hot_readings / 2);
    let quality = cfg.quality.as_ref().map_or(0, quality::memory);
    // The log spans between one and two horizons, in two segments; each has a snapshot.
    3 * kernel
        + (readings + readings / 2).saturating_mul(7 + 5 * width / 2)
        + size_of::<VehicleState>()
        + 8 * width
        + quality
}
