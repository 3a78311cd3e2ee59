//! A plausible fleet for demos, tests and benchmarks: the same options give the same bytes on every platform.
//!
//! ```text
//!  round by round, vehicle by vehicle (each at its own offset in the interval, so the output is in time order)
//!     VehicleState::step ──► Faults::apply ──► write::signals ──┬──► record
//!                                                               ├──► late: held back 1-60 s ─┐
//!                                                               ├──► duplicate: again within 0-30 s ──► record
//!                                                               └──► broken: one more record, made from this one
//! ```
//!
//! The good records do not depend on the shares of late, duplicate and broken ones.

pub mod broken;
pub mod command;
pub mod faults;
pub mod fleet;
pub mod kafka;
mod vehicle;
mod write;

pub use broken::{Broken, Expect};
pub use faults::{FaultKind, Injected};
pub use fleet::Documents;

use broken::Deck;
use faults::Faults;
use fleet::Shape;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use vehicle::{VehicleState, below};

/// 2026-05-01T08:00:00Z in µs.
pub const DEFAULT_START: i64 = 1_777_622_400_000_000;
/// The shortest interval, µs: record times have milliseconds.
pub const MIN_INTERVAL: i64 = 1_000;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct SimulateOptions {
    pub vehicles: usize,
    /// Event time covered, µs.
    pub duration: i64,
    pub seed: u64,
    /// Time between two readings of a vehicle, µs; at least [`MIN_INTERVAL`].
    pub interval: i64,
    /// Event time of the first round, µs.
    pub start: i64,
    /// Broken records for each good one, 0 to 1.
    pub broken: f64,
    /// Share of the good records that come twice.
    pub duplicates: f64,
    /// Share of the good records that come 1 to 60 s late (of event time), out of order but inside the default
    /// `hot_horizon`.
    pub late: f64,
    /// Put sensor faults into every seventh vehicle.
    pub faults: bool,
}

impl Default for SimulateOptions {
    fn default() -> Self {
        SimulateOptions {
            vehicles: 100,
            duration: 60_000_000,
            seed: 1,
            interval: 1_000_000,
            start: DEFAULT_START,
            broken: 0.0,
            duplicates: 0.0,
            late: 0.0,
            faults: false,
        }
    }
}

/// What is to be known of a record beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimHead {
    /// Event time, µs; of a broken record that of the good one it was made from.
    pub at: i64,
    /// When it is sent, in event time, µs; ascending. Equal to `at` unless the record is late or a duplicate.
    pub sent: i64,
    /// Index of the vehicle; its id is [`Simulator::key`].
    pub vehicle: usize,
    pub late: bool,
    pub duplicate: bool,
    pub broken: Option<Broken>,
}

/// A record with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimRecord {
    pub at: i64,
    /// The vehicle's id, also for a broken record.
    pub partition_key: String,
    /// `None`: a tombstone, which only Kafka can hold.
    pub bytes: Option<Vec<u8>>,
    pub late: bool,
    pub duplicate: bool,
    pub broken: Option<Broken>,
}

/// The simulation: an iterator of [`SimRecord`], or, without an allocation for a record, [`Simulator::next_into`].
#[derive(Debug)]
pub struct Simulator {
    options: SimulateOptions,
    shape: Shape,
    vehicles: Vec<VehicleState>,
    faults: Vec<Option<Faults>>,
    injected: Vec<Injected>,
    disorder: Disorder,
    clock: write::Clock,
    round: i64,
    vehicle: usize,
    /// Records behind the one just given, at the same instant.
    pending: VecDeque<(SimHead, Vec<u8>)>,
    spare: Vec<u8>,
}

/// What is done to good records: decided with a generator of its own.
#[derive(Debug)]
struct Disorder {
    rng: Pcg32,
    late: u64,
    duplicates: u64,
    broken: u64,
    deck: Deck,
    held: BinaryHeap<Reverse<Held>>,
    sequence: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    sent: i64,
    sequence: u64,
    at: i64,
    vehicle: usize,
    late: bool,
    duplicate: bool,
    bytes: Vec<u8>,
}

impl Simulator {
    pub fn new(options: SimulateOptions) -> Simulator {
        let options = SimulateOptions {
            vehicles: options.vehicles.max(1),
            interval: options.interval.max(MIN_INTERVAL),
            ..options
        };
        let shape = Shape { vehicles: options.vehicles };
        let fault = |i| options.faults.then(|| Faults::of(i, options.start)).flatten();
        Simulator {
            vehicles: (0..shape.vehicles).map(|i| VehicleState::new(i, options.seed, options.start, shape)).collect(),
            faults: (0..shape.vehicles).map(fault).collect(),
            injected: Vec::new(),
            disorder: Disorder::new(&options),
            clock: write::Clock::default(),
            round: 0,
            vehicle: 0,
            pending: VecDeque::new(),
            spare: Vec::new(),
            shape,
            options,
        }
    }

    /// Clears `bytes` and writes the next record to it; `None` at the end. A tombstone (see
    /// [`Broken::is_tombstone`]) leaves it empty.
    pub fn next_into(&mut self, bytes: &mut Vec<u8>) -> Option<SimHead> {
        if let Some((head, record)) = self.pending.pop_front() {
            *bytes = record;
            return Some(head);
        }
        loop {
            let Some(at) = self.next_instant() else {
                return self.disorder.release(i64::MAX, bytes);
            };
            if let Some(head) = self.disorder.release(at, bytes) {
                return Some(head);
            }
            let vehicle = self.vehicle;
            self.vehicle += 1;
            if !self.record(vehicle, at, bytes) {
                continue;
            }
            if let Some(head) = self.disturb(vehicle, at, bytes) {
                return Some(head);
            }
        }
    }

    /// The faults put in so far, in the order of their beginnings; complete when the simulation has ended.
    pub fn injected(&self) -> &[Injected] {
        &self.injected
    }

    /// The reference documents of the fleet.
    pub fn documents(&self) -> Documents {
        self.shape.documents()
    }

    /// The record key of a vehicle: its id.
    pub fn key(vehicle: usize) -> String {
        fleet::vehicle_id(vehicle)
    }

    /// Event time at which the next vehicle is asked; `None` at the end.
    fn next_instant(&mut self) -> Option<i64> {
        if self.vehicle == self.vehicles.len() {
            self.vehicle = 0;
            self.round += 1;
        }
        let offset = self.options.interval as i128 * self.vehicle as i128 / self.vehicles.len() as i128;
        let since = self.round * self.options.interval + offset as i64 / 1_000 * 1_000;
        let rest = self.round * self.options.interval < self.options.duration;
        // The last round is cut where the time is over.
        if !rest || since >= self.options.duration {
            return None;
        }
        Some(self.options.start + since)
    }

    /// Writes the vehicle's good record; false while it stands parked.
    fn record(&mut self, index: usize, at: i64, bytes: &mut Vec<u8>) -> bool {
        let Some(vehicle) = self.vehicles.get_mut(index) else { return false };
        let Some(mut sample) = vehicle.step(at, self.shape) else { return false };
        if let Some(Some(faults)) = self.faults.get_mut(index) {
            faults.apply(index, at, &mut sample, &mut self.injected);
        }
        bytes.clear();
        bytes.extend_from_slice(&vehicle.prefix);
        self.clock.write(bytes, at);
        write::signals(bytes, &sample);
        true
    }

    /// Holds the record back, repeats it, adds a broken one; `None` when nothing is to be sent now.
    fn disturb(&mut self, vehicle: usize, at: i64, bytes: &mut Vec<u8>) -> Option<SimHead> {
        let d = &mut self.disorder;
        if d.late | d.duplicates | d.broken == 0 {
            return Some(SimHead { at, sent: at, vehicle, late: false, duplicate: false, broken: None });
        }
        let late = d.hit(d.late).then(|| 1_000_000 + i64::from(below(&mut d.rng, 59_000)) * 1_000);
        let sent = at + late.unwrap_or(0);
        if d.hit(d.duplicates) {
            let delay = if below(&mut d.rng, 2) == 0 { 0 } else { i64::from(below(&mut d.rng, 30_000)) * 1_000 };
            d.hold(Held {
                sent: sent + delay,
                sequence: 0,
                at,
                vehicle,
                late: late.is_some(),
                duplicate: true,
                bytes: bytes.clone(),
            });
        }
        let head = SimHead { at, sent: at, vehicle, late: false, duplicate: false, broken: None };
        let broken = d.hit(d.broken).then(|| d.deck.deal());
        if let Some(kind) = broken {
            kind.write(bytes, &mut self.spare);
        }
        let broken = broken.map(|kind| SimHead { broken: Some(kind), ..head });
        if late.is_some() {
            // The original of a late duplicate must come first.
            d.hold_first(Held { sent, sequence: 0, at, vehicle, late: true, duplicate: false, bytes: bytes.clone() });
            std::mem::swap(bytes, &mut self.spare);
            return broken;
        }
        if let Some(broken) = broken {
            self.pending.push_back((broken, self.spare.clone()));
        }
        Some(head)
    }
}

impl Iterator for Simulator {
    type Item = SimRecord;

    fn next(&mut self) -> Option<SimRecord> {
        let mut bytes = Vec::new();
        let head = self.next_into(&mut bytes)?;
        let tombstone = head.broken.is_some_and(|b| b.is_tombstone());
        Some(SimRecord {
            at: head.at,
            partition_key: Simulator::key(head.vehicle),
            bytes: (!tombstone).then_some(bytes),
            late: head.late,
            duplicate: head.duplicate,
            broken: head.broken,
        })
    }
}

impl Disorder {
    fn new(options: &SimulateOptions) -> Disorder {
        let share = |p: f64| (p.clamp(0.0, 1.0) * 4_294_967_296.0) as u64;
        Disorder {
            rng: Pcg32::new(options.seed, 0x6469_736f_7264),
            late: share(options.late),
            duplicates: share(options.duplicates),
            broken: share(options.broken),
            deck: Deck::default(),
            held: BinaryHeap::new(),
            sequence: 1 << 32,
        }
    }

    /// Draws always, so that one share does not change what another hits.
    fn hit(&mut self, share: u64) -> bool {
        u64::from(self.rng.next_u32()) < share
    }

    fn hold(&mut self, mut held: Held) {
        self.sequence += 2;
        held.sequence = self.sequence;
        self.held.push(Reverse(held));
    }

    /// Holds a record before the one that was held last, should both be sent at the same instant.
    fn hold_first(&mut self, mut held: Held) {
        held.sequence = self.sequence - 1;
        self.sequence += 2;
        self.held.push(Reverse(held));
    }

    /// The next held record that is to be sent before `at`.
    fn release(&mut self, at: i64, bytes: &mut Vec<u8>) -> Option<SimHead> {
        if self.held.peek().is_none_or(|Reverse(h)| h.sent >= at) {
            return None;
        }
        let Reverse(held) = self.held.pop()?;
        *bytes = held.bytes;
        let Held { sent, at, vehicle, late, duplicate, .. } = held;
        Some(SimHead { at, sent, vehicle, late, duplicate, broken: None })
    }
}

#[cfg(test)]
mod tests;
