//! Sensor faults that are put into the records on purpose, so that the detectors can be held against the truth.

use super::vehicle::Sample;
use serde::Serialize;

const SECOND: i64 = 1_000_000;
/// A faulty vehicle has a fault after 20 s of the simulation at the earliest, and then one in four minutes.
const FIRST: i64 = 20 * SECOND;
const GAP: i64 = 240 * SECOND;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// One sample of `engine_rpm` is 7,900: within the range of the sensor, but far from what the engine does.
    Spike,
    /// `engine_rpm` keeps its value for 90 s.
    Stuck,
    /// `fuel_level` is 137.5 percent for 3 s.
    OutOfRange,
}

/// A fault as it was put in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Injected {
    pub vehicle: usize,
    pub signal: &'static str,
    pub kind: FaultKind,
    /// Event times of the first and the last sample that bear it, µs.
    pub from: i64,
    pub to: i64,
    /// How many samples bear it.
    pub samples: u32,
    /// The value shown, in thousandths of the signal's unit.
    pub value: i64,
}

/// The faults of one vehicle: every seventh has them.
#[derive(Debug)]
pub(super) struct Faults {
    next: i64,
    count: usize,
    /// Index into the list of the one that is on, and its end.
    active: Option<(usize, i64)>,
}

impl Faults {
    pub(super) fn of(vehicle: usize, start: i64) -> Option<Faults> {
        (vehicle % 7 == 3).then(|| Faults {
            next: start + FIRST + (vehicle as i64 / 7 % 40) * SECOND,
            count: vehicle / 7,
            active: None,
        })
    }

    /// Changes the sample when a fault is due or on, and writes it down in `list`.
    pub(super) fn apply(&mut self, vehicle: usize, at: i64, sample: &mut Sample, list: &mut Vec<Injected>) {
        if self.active.is_none_or(|(_, end)| at >= end) {
            self.active = None;
            if at < self.next {
                return;
            }
            self.begin(vehicle, at, sample, list);
        }
        let Some(fault) = self.active.and_then(|(i, _)| list.get_mut(i)) else { return };
        match fault.kind {
            FaultKind::Spike | FaultKind::Stuck => sample.rpm = fault.value / 1_000,
            FaultKind::OutOfRange => sample.fuel = fault.value,
        }
        fault.to = at;
        fault.samples += 1;
    }

    fn begin(&mut self, vehicle: usize, at: i64, sample: &Sample, list: &mut Vec<Injected>) {
        let (kind, signal, length, value) = match self.count % 3 {
            0 => (FaultKind::Spike, "engine_rpm", 1, 7_900_000),
            1 => (FaultKind::OutOfRange, "fuel_level", 3 * SECOND, 137_500),
            _ => (FaultKind::Stuck, "engine_rpm", 90 * SECOND, sample.rpm * 1_000),
        };
        self.count += 1;
        self.active = Some((list.len(), at + length));
        self.next = at + length + GAP;
        list.push(Injected { vehicle, signal, kind, from: at, to: at, samples: 0, value });
    }
}

impl Injected {
    /// One JSON object: vehicle_id, signal, kind, from, to (RFC 3339), samples, value.
    pub fn to_json(&self) -> String {
        use drivetrain_schemas::time::format_rfc3339;
        serde_json::json!({
            "vehicle_id": super::Simulator::key(self.vehicle),
            "signal": self.signal,
            "kind": self.kind,
            "from": format_rfc3339(self.from),
            "to": format_rfc3339(self.to),
            "samples": self.samples,
            "value": drivetrain_schemas::fixed::to_f64(i128::from(self.value), 3),
        })
        .to_string()
    }
}
