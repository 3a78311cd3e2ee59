//! One trip while it lasts: its samples, drivers, distance, speed and harsh values.

use crate::config::{HarshParams, TripParams};
use crate::facts::{Facts, Harsh, TripFact};
use crate::sample::Sample;
use drivetrain_schemas::fixed::{div_round, pow10};
use drivetrain_schemas::reading::NULL;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

/// Mean radius of the Earth, m (IUGG).
const EARTH: f64 = 6_371_008.8;
/// (1e-6 km/h) × µs in one millimetre.
const MILLIMETRE: i128 = 3_600_000_000;

/// A trip that has not ended, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    trip_id: Arc<str>,
    fleet: Option<Arc<str>>,
    /// How many samples each driver has; the current one's place in it.
    drivers: SmallVec<[(Arc<str>, i64); 1]>,
    driver: Option<u32>,
    started_at: i64,
    ended_at: i64,
    samples: i64,
    interval: i64,
    path: Path,
    max_speed: Option<i64>,
    speeding: Option<i64>,
    /// Ascending; shared with the facts that were said and with snapshots.
    harsh: Arc<Vec<Harsh>>,
    /// What was last said of it.
    said: Option<Arc<TripFact>>,
}

/// The way so far. A step is measured by the first method that knows its whole time: each keeps its last point, and
/// `covered` says up to when the way is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Path {
    /// Twice the distance, so that halves of (v0 + v1) are not lost.
    doubled: i128,
    /// Some method has had a point, so that the distance is known.
    known: bool,
    covered: i64,
    odometer: Option<(i64, i128)>,
    increment: Option<i64>,
    speed: Option<(i64, i64)>,
    position: Option<(i64, [i64; 2])>,
}

impl Open {
    /// A trip that begins.
    pub fn new(trip_id: Arc<str>, started_at: i64) -> Self {
        let path = Path {
            doubled: 0,
            known: false,
            covered: i64::MIN,
            odometer: None,
            increment: None,
            speed: None,
            position: None,
        };
        Open {
            trip_id,
            fleet: None,
            drivers: SmallVec::new(),
            driver: None,
            started_at,
            ended_at: started_at,
            samples: 0,
            interval: 0,
            path,
            max_speed: None,
            speeding: None,
            harsh: Arc::default(),
            said: None,
        }
    }

    pub fn trip_id(&self) -> &Arc<str> {
        &self.trip_id
    }

    pub fn ended_at(&self) -> i64 {
        self.ended_at
    }

    /// Adds a sample; whether what is said of the open trip changes by it.
    #[inline]
    pub fn add(&mut self, cfg: &TripParams, sample: &Sample<'_>, same_meta: bool) -> bool {
        self.ended_at = sample.at;
        self.samples += 1;
        self.interval = sample.interval;
        if !same_meta || self.samples == 1 {
            self.circumstances(sample);
        }
        if let Some((_, n)) = self.driver.and_then(|place| self.drivers.get_mut(place as usize)) {
            *n += 1;
        }
        let speed = self.measure(cfg, sample);
        let mut reports = self.said.is_none();
        for harsh in &cfg.harsh {
            let value = sample.value(harsh.signal);
            if value != NULL && (value >= harsh.floor || value <= -harsh.floor) {
                self.record(harsh, value, speed);
                reports |= harsh.report_above.is_some_and(|least| value >= least)
                    || harsh.report_below.is_some_and(|most| value <= most);
            }
        }
        reports
    }

    fn circumstances(&mut self, sample: &Sample<'_>) {
        if self.fleet.is_none() {
            self.fleet.clone_from(&sample.meta.fleet);
        }
        self.driver = sample.meta.driver.as_ref().map(|driver| {
            let known = self.drivers.iter().position(|(d, _)| d == driver);
            let place = known.unwrap_or_else(|| {
                self.drivers.push((driver.clone(), 0));
                self.drivers.len() - 1
            });
            place as u32
        });
    }

    /// Distance, highest speed and speeding time; returns the speed in 1e-6 km/h where it is known.
    #[inline]
    fn measure(&mut self, cfg: &TripParams, sample: &Sample<'_>) -> Option<i64> {
        let at = sample.at;
        let speed = match cfg.speed {
            Some((signal, factor)) if sample.value(signal) != NULL => {
                Some(factor.of(sample.value(signal)).clamp(-1 << 62, 1 << 62) as i64)
            }
            _ => None,
        };
        let before = self.path.speed;
        self.path.step(cfg, sample, speed);
        if let Some(v) = speed {
            self.max_speed = Some(self.max_speed.map_or(v, |m| m.max(v)));
            if let Some(limit) = cfg.speeding_above {
                let step = before.filter(|(t, v)| *v > limit && at.saturating_sub(*t) <= cfg.max_gap);
                *self.speeding.get_or_insert(0) += step.map_or(0, |(t, _)| at - t);
            }
            return speed;
        }
        // Records of one measurement each: the speed stands in another one.
        before.filter(|(t, _)| at.saturating_sub(*t) <= sample.gap()).map(|(_, v)| v)
    }

    fn record(&mut self, cfg: &HarshParams, value: i64, speed: Option<i64>) {
        let scale = i128::from(pow10(cfg.decimals));
        let thousandths = i128::from(value) * 1000;
        let floor = thousandths.div_euclid(scale);
        let bin = 2 * floor + i128::from(thousandths.rem_euclid(scale) != 0);
        let bin = bin.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        let speed = speed.map_or(-1, |v| v.div_euclid(1_000_000).clamp(0, i16::MAX.into()) as i16);
        let entry = Harsh { signal: cfg.signal, bin, speed, count: 1 };
        let bins = Arc::make_mut(&mut self.harsh);
        match bins.binary_search_by_key(&(entry.signal, bin, speed), |h| (h.signal, h.bin, h.speed)) {
            Ok(i) => bins[i].count = bins[i].count.saturating_add(1),
            Err(i) => bins.insert(i, entry),
        }
    }

    /// The trip as it stands.
    pub fn fact(&self, vehicle: &Arc<str>, open: bool) -> TripFact {
        // Most samples first; among equals the smallest id.
        let driver = self.drivers.iter().max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)));
        TripFact {
            trip_id: self.trip_id.clone(),
            vehicle: vehicle.clone(),
            driver: driver.map(|(driver, _)| driver.clone()),
            fleet: self.fleet.clone(),
            open,
            whole: false,
            started_at: self.started_at,
            ended_at: self.ended_at,
            samples: self.samples,
            duration: self.ended_at.saturating_sub(self.started_at).saturating_add(self.interval),
            distance: self.path.known.then(|| div_round(self.path.doubled, 2)),
            max_speed: self.max_speed,
            speeding: self.speeding,
            harsh: self.harsh.to_vec(),
        }
    }

    /// Says the open trip anew.
    pub(super) fn report(&mut self, vehicle: &Arc<str>, facts: &mut Facts) {
        let fact = self.fact(vehicle, true);
        if let Some(said) = self.said.take() {
            facts.trips.push(((*said).clone(), -1));
        }
        facts.trips.push((fact.clone(), 1));
        self.said = Some(Arc::new(fact));
    }

    /// Says the trip as ended, in the place of what was said while it was open.
    pub(super) fn finish(&self, vehicle: &Arc<str>, facts: &mut Facts) {
        if let Some(said) = &self.said {
            facts.trips.push(((**said).clone(), -1));
        }
        facts.trips.push((self.fact(vehicle, false), 1));
    }
}

impl Path {
    #[inline]
    fn step(&mut self, cfg: &TripParams, sample: &Sample<'_>, speed: Option<i64>) {
        let at = sample.at;
        let mut length = None;
        if let Some((signal, factor)) = cfg.odometer
            && sample.value(signal) != NULL
        {
            let metres = factor.of(sample.value(signal));
            if let Some((t, before)) = self.odometer
                && t >= self.covered
                && metres >= before
            {
                length = Some(2 * (metres - before));
            }
            (self.odometer, self.known) = (Some((at, metres)), true);
        }
        if let Some((signal, factor)) = cfg.distance
            && sample.value(signal) != NULL
        {
            // An increment belongs to the trip whose sample states it, that of the first sample included.
            let value = factor.of(sample.value(signal));
            let step = at > self.covered || self.increment.is_some_and(|t| t >= self.covered);
            if length.is_none() && step && value >= 0 {
                length = Some(2 * value);
            }
            (self.increment, self.known) = (Some(at), true);
        }
        if let Some(v1) = speed {
            if let Some((t, v0)) = self.speed
                && length.is_none()
                && t >= self.covered
                && at.saturating_sub(t) <= cfg.max_gap
            {
                length = Some((i128::from(v0) + i128::from(v1)) * i128::from(at - t));
            }
            (self.speed, self.known) = (Some((at, v1)), true);
        }
        if let Some([lat, lon]) = cfg.position {
            let point = [sample.value(lat.0), sample.value(lon.0)];
            if point.iter().all(|v| *v != NULL) {
                if let Some((t, before)) = self.position
                    && length.is_none()
                    && t >= self.covered
                {
                    length = Some(2 * haversine(before, point, [lat.1, lon.1]));
                }
                (self.position, self.known) = (Some((at, point)), true);
            }
        }
        if let Some(length) = length {
            self.doubled += length;
            self.covered = at;
        }
    }
}

/// Length of the great circle between two positions, rounded to the millimetre, in (1e-6 km/h) × µs.
fn haversine(a: [i64; 2], b: [i64; 2], decimals: [u32; 2]) -> i128 {
    if a == b {
        return 0;
    }
    let radians = |value: i64, decimals: u32| value as f64 / pow10(decimals) as f64 * (std::f64::consts::PI / 180.0);
    let (lat0, lat1) = (radians(a[0], decimals[0]), radians(b[0], decimals[0]));
    let (lon0, lon1) = (radians(a[1], decimals[1]), radians(b[1], decimals[1]));
    let (s, t) = (libm::sin((lat1 - lat0) / 2.0), libm::sin((lon1 - lon0) / 2.0));
    let h = s * s + libm::cos(lat0) * libm::cos(lat1) * t * t;
    let metres = 2.0 * EARTH * libm::asin(libm::sqrt(h.clamp(0.0, 1.0)));
    libm::rint(metres * 1000.0) as i128 * MILLIMETRE
}
