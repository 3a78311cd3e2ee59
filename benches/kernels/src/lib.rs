//! What the benches run over: the readings of a small fleet, made of integers and a seed, so that each run has the same.
//!
//! ```text
//!  Fleet::readings ──► records: wide, long, trip payloads, CSV, columns      (for decode)
//!                  └─► batches, and each vehicle's rows in them              (for sequence and the kernels)
//! ```
//!
//! The signals and detectors are those of `configs/fleet.toml`.

pub mod batches;
pub mod records;

use drivetrain_operators::config::{
    DetectorsConfig, FactsConfig, KernelConfig, KernelInput, RangeConfig, StuckConfig, TimeConfig, TripConfig,
    WindowConfig, ZscoreConfig,
};
use drivetrain_operators::quality::QualityConfig;
use drivetrain_schemas::catalogue::{Catalogue, SignalConfig};
use drivetrain_schemas::policy::{Decimal, Policy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// 2026-05-01T08:00:00Z in µs.
pub const START: i64 = 1_777_622_400_000_000;
pub const SECOND: i64 = 1_000_000;
/// Signals in the catalogue.
pub const WIDTH: usize = 9;
/// How long a trip lasts, s.
const TRIP: i64 = 120;

/// The signals of `configs/fleet.toml`: name, VSS path, unit, decimals, range, windows.
type Declared = (&'static str, &'static str, Option<&'static str>, Option<u32>, Option<[f64; 2]>, bool);

const SIGNALS: [Declared; WIDTH] = [
    ("engine_rpm", "Vehicle.Powertrain.CombustionEngine.Speed", Some("rpm"), None, Some([0.0, 20_000.0]), true),
    ("fuel_level", "Vehicle.Powertrain.FuelSystem.RelativeLevel", Some("percent"), None, Some([0.0, 100.0]), true),
    ("g_force_lat", "Vehicle.Acceleration.Lateral", Some("g"), None, Some([-10.0, 10.0]), true),
    ("g_force_long", "Vehicle.Acceleration.Longitudinal", Some("g"), None, Some([-10.0, 10.0]), true),
    ("heading", "Vehicle.CurrentLocation.Heading", Some("deg"), Some(6), Some([0.0, 360.0]), false),
    ("latitude", "Vehicle.CurrentLocation.Latitude", Some("deg"), None, Some([-90.0, 90.0]), false),
    ("longitude", "Vehicle.CurrentLocation.Longitude", Some("deg"), None, Some([-180.0, 180.0]), false),
    ("odometer_km", "Vehicle.TraveledDistance", Some("km"), Some(3), None, false),
    ("speed_kmh", "Vehicle.Speed", Some("km/h"), Some(6), Some([0.0, 400.0]), true),
];

/// The catalogue and what the kernels are told.
#[derive(Debug)]
pub struct Setup {
    pub catalogue: Arc<Catalogue>,
    pub kernels: KernelConfig,
    pub policy: Policy,
}

impl Setup {
    pub fn new() -> Self {
        let signal = |(name, vss, unit, decimals, range, windows): Declared| {
            let config = SignalConfig {
                vss: Some(vss.into()),
                unit: unit.map(Into::into),
                decimals,
                range,
                interval: windows.then(|| "1s".into()),
                windows: Some(windows),
                ..SignalConfig::default()
            };
            (name.to_string(), config)
        };
        let signals: BTreeMap<String, SignalConfig> = SIGNALS.into_iter().map(signal).collect();
        let catalogue = Arc::new(Catalogue::new(&signals).unwrap());
        let policy = Policy::fleetflow();
        let kernels = KernelConfig::new(&KernelInput {
            time: &TimeConfig::default(),
            trip: &TripConfig::default(),
            facts: &FactsConfig::default(),
            windows: &WindowConfig::default(),
            detectors: &detectors(),
            quality: &QualityConfig::default(),
            catalogue: &catalogue,
            policy: &policy,
            intervals: &BTreeMap::from([("bench".into(), SECOND)]),
        });
        Self { catalogue, kernels: kernels.unwrap(), policy }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

fn detectors() -> DetectorsConfig {
    let range = RangeConfig { min: Decimal(0), max: Decimal(7_000_000_000) };
    let zscore = ZscoreConfig { threshold: Decimal(8_000_000), ..ZscoreConfig::default() };
    let stuck = StuckConfig { moving_only: Some(true), ..StuckConfig::default() };
    DetectorsConfig {
        range: BTreeMap::from([("engine_rpm".to_string(), range)]),
        zscore: BTreeMap::from([("fuel_level".to_string(), zscore)]),
        stuck: BTreeMap::from([("engine_rpm".to_string(), stuck)]),
    }
}

/// One moment of one vehicle.
#[derive(Clone, Debug)]
pub struct Reading {
    pub vehicle: usize,
    /// µs.
    pub at: i64,
    /// By signal, fixed point at the catalogue's decimals.
    pub values: [i64; WIDTH],
}

impl Reading {
    pub fn vehicle_id(&self) -> String {
        format!("veh-{:06}", self.vehicle)
    }

    pub fn driver_id(&self) -> String {
        format!("drv-{:06}", self.vehicle)
    }

    pub fn fleet_id(&self) -> String {
        format!("depot-{}", self.vehicle % 20)
    }

    /// Unique by vehicle; another every [`TRIP`] seconds.
    pub fn trip_id(&self) -> String {
        format!("trip-{}", (self.at - START) / SECOND / TRIP)
    }
}

/// The readings of a fleet, one a vehicle a second, in the order of time.
pub fn readings(vehicles: usize, seconds: usize) -> Vec<Reading> {
    let mut driving: Vec<Driving> = (0..vehicles).map(Driving::new).collect();
    let mut out = Vec::with_capacity(vehicles * seconds);
    for second in 0..seconds as i64 {
        for (vehicle, state) in driving.iter_mut().enumerate() {
            let at = START + second * SECOND + vehicle as i64 * 1_000 % SECOND;
            out.push(Reading { vehicle, at, values: state.step() });
        }
    }
    out
}

/// A vehicle on its way: a random walk in integers.
struct Driving {
    random: u64,
    /// 1e-2 km/h.
    speed: i64,
    /// 1e-7 degrees.
    place: [i64; 2],
    /// 1e-3 m.
    driven: i64,
    /// 1e-2 %.
    fuel: i64,
}

impl Driving {
    fn new(vehicle: usize) -> Self {
        let mut state = Driving {
            random: vehicle as u64 + 1,
            speed: 5_000,
            place: [481_000_000, 115_000_000],
            driven: 1_000_000,
            fuel: 9_000,
        };
        state.place = state.place.map(|degrees| degrees + vehicle as i64 * 1_000);
        state
    }

    /// splitmix64, from 0 and less than `n`.
    fn below(&mut self, n: u64) -> i64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n) as i64
    }

    fn step(&mut self) -> [i64; WIDTH] {
        // One second in a hundred is a harsh one, beyond 0.4 g.
        let harsh = self.below(100) == 0;
        let change = if harsh { 1_600 } else { self.below(401) - 200 };
        let change = if self.speed + change > 15_000 || (harsh && self.below(2) == 0) { -change } else { change };
        self.speed = (self.speed + change).max(0);
        self.driven += self.speed * 1_000 / 360;
        self.place = [self.place[0] + self.speed / 5, self.place[1] + self.speed / 7];
        self.fuel -= i64::from(self.below(20) == 0);
        // 0.01 km/h a second are 1e-2 / 3.6 / 9.80665 g.
        let long = change * 283_255 / 1_000;
        let lat = (self.below(401) - 200) * 1_000;
        // A gauge that shakes: one that stands still makes each change an anomaly.
        let fuel = self.fuel + self.below(21);
        let rpm = 800 + self.speed / 5 + self.below(50);
        [
            rpm * 1_000_000,
            fuel * 10_000,
            lat,
            long,
            self.below(3_600) * 100_000,
            self.place[0],
            self.place[1],
            self.driven / 1_000,
            self.speed * 10_000,
        ]
    }
}
