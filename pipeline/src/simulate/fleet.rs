//! The simulated fleet: which vehicles, drivers, fleets and habits there are. All of it follows from the numbers of
//! vehicles, so that ids, documents and records agree without being stored.
//!
//! ```text
//!  fleet-root ─┬─ region-1 ─┬─ depot-1-1 ── veh-000000 (home driver drv-000000) …
//!              │            └─ depot-1-2
//!              └─ region-2 …
//! ```

use drivetrain_schemas::control::{Driver, Fleet, Sensor, Vehicle};
use drivetrain_schemas::policy::Decimal;

/// A type of vehicle and how it moves.
#[derive(Debug)]
pub struct VehicleType {
    pub name: &'static str,
    pub manufacturer: &'static str,
    pub model: &'static str,
    /// Top speed, 0.001 km/h.
    pub top_speed: i64,
    /// Largest |g| of a harsh sample, 0.001 g; the smallest is 0.41 g for all.
    pub harsh_to: u32,
    /// Fuel used on a kilometre, 0.001 percent of the tank.
    pub thirst: i64,
}

const fn vehicle_type(
    name: &'static str,
    manufacturer: &'static str,
    model: &'static str,
    top_speed: i64,
    harsh_to: u32,
    thirst: i64,
) -> VehicleType {
    VehicleType { name, manufacturer, model, top_speed, harsh_to, thirst }
}

static TYPES: [VehicleType; 5] = [
    vehicle_type("car", "Volta", "C3", 130_000, 750, 140),
    vehicle_type("truck", "Ackermann", "T18", 89_000, 520, 90),
    vehicle_type("bus", "Metro", "B12", 80_000, 560, 110),
    vehicle_type("scooter", "Piccola", "S50", 45_000, 580, 900),
    vehicle_type("rig", "Ackermann", "R40", 75_000, 480, 160),
];

/// Which type each tenth vehicle has: five cars, two trucks, a bus, a scooter, a rig.
const TYPE_OF: [usize; 10] = [0, 1, 0, 2, 0, 3, 0, 1, 4, 0];

/// How a driver drives.
#[derive(Debug)]
pub struct Habit {
    /// Probability of a harsh sample, of 2^32.
    pub harsh: u32,
    /// Largest |g| of ordinary speeding up and slowing down, 0.001 g.
    pub comfort: i64,
    /// Largest |g| in a bend, 0.001 g.
    pub bend: i64,
}

/// `n` in 100,000, as a fraction of 2^32.
const fn per_100k(n: u64) -> u32 {
    ((n << 32) / 100_000) as u32
}

/// Calm, normal, aggressive.
static HABITS: [Habit; 3] = [
    Habit { harsh: per_100k(200), comfort: 90, bend: 180 },
    Habit { harsh: per_100k(600), comfort: 140, bend: 250 },
    Habit { harsh: per_100k(2_000), comfort: 220, bend: 430 },
];

/// Which habit each tenth driver has. The mean share of harsh samples is 0.6·0.2 % + 0.3·0.6 % + 0.1·2 % = 0.5 %.
const HABIT_OF: [usize; 10] = [0, 1, 0, 0, 2, 0, 1, 0, 1, 0];

/// Where the regions lie: name, latitude and longitude in 1e-7 degrees.
const REGIONS: [(&str, i64, i64); 4] = [
    ("Region North", 535_511_000, 99_937_000),
    ("Region West", 509_375_000, 69_603_000),
    ("Region South", 481_351_000, 115_820_000),
    ("Region East", 525_200_000, 134_050_000),
];

const DEPOTS: usize = 3;
/// The top of the hierarchy.
pub const ROOT: &str = "fleet-root";

/// The shape of the fleet.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub vehicles: usize,
}

impl Shape {
    /// Regions: one for up to five vehicles, four at most.
    fn regions(self) -> usize {
        self.vehicles.div_ceil(5).clamp(1, REGIONS.len())
    }

    fn depots(self) -> usize {
        self.regions() * DEPOTS
    }

    /// Every vehicle has a home driver; a fifth more stand in for them.
    pub fn drivers(self) -> usize {
        self.vehicles + (self.vehicles / 5).max(1)
    }

    fn region_of(self, vehicle: usize) -> usize {
        vehicle % self.depots() / DEPOTS
    }

    pub fn depot_id(self, index: usize) -> String {
        let depot = index % self.depots();
        format!("depot-{}-{}", depot / DEPOTS + 1, depot % DEPOTS + 1)
    }

    /// Latitude and longitude of the vehicle's depot, 1e-7 degrees.
    pub fn home(self, vehicle: usize) -> (i64, i64) {
        let (_, lat, lon) = REGIONS[self.region_of(vehicle) % REGIONS.len()];
        let depot = (vehicle % self.depots() % DEPOTS) as i64;
        (lat + (depot - 1) * 400_000, lon + (depot * depot - 1) * 300_000)
    }

    /// The documents of the fleet as JSON lines.
    pub fn documents(self) -> Documents {
        Documents {
            vehicles: lines((0..self.vehicles).map(|i| self.vehicle(i))),
            drivers: lines((0..self.drivers()).map(|i| self.driver(i))),
            fleets: lines(self.fleets().into_iter()),
        }
    }

    fn vehicle(self, index: usize) -> Vehicle {
        let kind = type_of(index);
        Vehicle {
            vehicle_id: vehicle_id(index).into(),
            external_id: Some(format!("SIM{index:014}")),
            kind: Some(kind.name.into()),
            manufacturer: Some(kind.manufacturer.into()),
            model: Some(kind.model.into()),
            fleet_id: Some(self.depot_id(index).into()),
            sensors: vec![
                sensor("speed_kmh", 0, kind.top_speed / 1_000 + 20),
                sensor("g_force_long", -2, 2),
                sensor("g_force_lat", -2, 2),
                sensor("engine_rpm", 0, 8_000),
                sensor("fuel_level", 0, 100),
            ],
            effective_from: None,
        }
    }

    fn driver(self, index: usize) -> Driver {
        let first = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gwen", "Hugo", "Ines", "Jon", "Kira"];
        let last = ["Abel", "Brandt", "Conrad", "Dietz", "Ernst", "Falk", "Graf"];
        Driver {
            driver_id: driver_id(index).into(),
            name: Some(format!("{} {}", first[index % first.len()], last[index % last.len()])),
            fleet_id: Some(self.depot_id(index).into()),
            effective_from: None,
        }
    }

    fn fleets(self) -> Vec<Fleet> {
        let fleet = |id: String, parent: Option<String>, name: String| Fleet {
            fleet_id: id.into(),
            parent_id: parent.map(Into::into),
            name: Some(name),
        };
        let mut fleets = vec![fleet(ROOT.into(), None, "Simulated fleet".into())];
        for (r, (name, ..)) in REGIONS.iter().enumerate().take(self.regions()) {
            let region = format!("region-{}", r + 1);
            fleets.push(fleet(region.clone(), Some(ROOT.into()), (*name).into()));
            for d in 0..DEPOTS {
                let id = self.depot_id(r * DEPOTS + d);
                fleets.push(fleet(id, Some(region.clone()), format!("{name}, depot {}", d + 1)));
            }
        }
        fleets
    }
}

/// Reference documents as JSON lines, as `[reference]` reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    pub vehicles: String,
    pub drivers: String,
    pub fleets: String,
}

/// How the vehicle ids of broken records begin.
pub const BROKEN_VEHICLE: &str = "veh-broken-";

pub fn vehicle_id(index: usize) -> String {
    format!("veh-{index:06}")
}

pub fn driver_id(index: usize) -> String {
    format!("drv-{index:06}")
}

pub fn type_of(vehicle: usize) -> &'static VehicleType {
    &TYPES[TYPE_OF[vehicle % TYPE_OF.len()]]
}

pub fn habit_of(driver: usize) -> &'static Habit {
    &HABITS[HABIT_OF[driver % HABIT_OF.len()]]
}

fn sensor(name: &str, min: i64, max: i64) -> Sensor {
    Sensor {
        sensor_type: name.into(),
        sampling_interval: None,
        range: Some([Decimal(min * 1_000_000), Decimal(max * 1_000_000)]),
        enabled: true,
    }
}

fn lines<T: serde::Serialize>(documents: impl Iterator<Item = T>) -> String {
    let mut text = String::new();
    for document in documents {
        // These types hold text and numbers only, which always serialise.
        text.push_str(&serde_json::to_string(&document).unwrap_or_default());
        text.push('\n');
    }
    text
}
