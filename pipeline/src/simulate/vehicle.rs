//! One simulated vehicle: it stands or drives a trip, and gives a [`Sample`] when it is asked at an instant.
//! Integers only, so that every platform computes the same.
//!
//! ```text
//!        pause over                      trip over (slows down before)
//!  Parked ─────────► Driving (2-10 min) ──────────────► Parked, or the next trip at once
//! ```

use super::fleet::{self, Habit, Shape, VehicleType};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;

const SECOND: i64 = 1_000_000;
/// Farther than this from the depot (1e-7 degrees, about 30 km) a vehicle turns back.
const RANGE: i64 = 3_000_000;
/// 0.001 km/h that 0.001 g add in a second, times 1,000: 9.80665 m/s² × 3.6.
const SPEED_PER_G: i64 = 35_304;

/// What the sensors say, in fixed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// 0.001 km/h.
    pub speed: i64,
    /// 0.001 g; speeding up is positive.
    pub g_long: i64,
    /// 0.001 g.
    pub g_lat: i64,
    /// 1e-7 degrees.
    pub lat: i64,
    pub lon: i64,
    /// 0.01 degrees, 0 to 35,999.
    pub heading: i64,
    pub rpm: i64,
    /// 0.001 percent.
    pub fuel: i64,
    /// mm.
    pub odometer: i64,
}

#[derive(Debug)]
pub(super) struct VehicleState {
    rng: Pcg32,
    index: usize,
    kind: &'static VehicleType,
    habit: &'static Habit,
    driving: bool,
    /// When the trip or the pause ends, µs.
    until: i64,
    trips: u32,
    driver: usize,
    last: i64,
    target: i64,
    retarget: i64,
    /// What is left of a bend, 0.01 degrees.
    turn: i64,
    now: Sample,
    fuel_full: i64,
    fuel_since: i64,
    /// The depot, 1e-7 degrees.
    home: (i64, i64),
    /// The head of the record, up to the time: changes with the trip only.
    pub prefix: Vec<u8>,
}

impl VehicleState {
    pub(super) fn new(index: usize, seed: u64, start: i64, shape: Shape) -> Self {
        let mut rng = Pcg32::new(seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), index as u64);
        let kind = fleet::type_of(index);
        let (lat, lon) = shape.home(index);
        let spread = |rng: &mut Pcg32| i64::from(below(rng, 1_200_000)) - 600_000;
        let now = Sample {
            speed: 0,
            g_long: 0,
            g_lat: 0,
            lat: lat + spread(&mut rng),
            lon: lon + spread(&mut rng),
            heading: i64::from(below(&mut rng, 36_000)),
            rpm: 0,
            fuel: 0,
            odometer: i64::from(below(&mut rng, 200_000)) * 1_000_000,
        };
        let mut vehicle = VehicleState {
            habit: fleet::habit_of(index),
            kind,
            index,
            driving: false,
            until: start,
            trips: 0,
            driver: index,
            last: start,
            target: 0,
            retarget: start,
            turn: 0,
            fuel_full: 20_000 + i64::from(below(&mut rng, 75_000)),
            fuel_since: now.odometer,
            home: (lat, lon),
            now,
            prefix: Vec::new(),
            rng,
        };
        vehicle.begin_somewhere(start, shape);
        vehicle
    }

    /// The fleet is under way when the simulation starts: every fifth trip ends within 5 to 25 s, every tenth vehicle
    /// stands, the others are somewhere in their trips.
    fn begin_somewhere(&mut self, start: i64, shape: Shape) {
        if self.index % 10 == 9 {
            self.until = start + self.seconds(0, 60);
            return;
        }
        self.begin(start, shape);
        if self.index.is_multiple_of(5) {
            self.until = start + self.seconds(5, 25);
            self.now.speed = 12_000;
        } else {
            self.until = start + self.seconds(25, 600);
            self.now.speed = i64::from(below(&mut self.rng, self.kind.top_speed as u32 / 2));
        }
    }

    /// The vehicle's sample at this instant, later than the last one; none while it stands parked.
    pub(super) fn step(&mut self, at: i64, shape: Shape) -> Option<Sample> {
        let elapsed = at - self.last;
        self.last = at;
        if at >= self.until {
            if self.driving {
                self.driving = false;
                self.now.speed = 0;
                // Three in ten drive on at once with the next trip.
                let pause = if below(&mut self.rng, 10) < 3 { 0 } else { self.seconds(20, 180) };
                self.until = at + pause;
            }
            if at >= self.until {
                self.begin(at, shape);
            }
        }
        if !self.driving {
            return None;
        }
        self.drive(at, elapsed.max(1));
        Some(self.now)
    }

    fn begin(&mut self, at: i64, shape: Shape) {
        self.driving = true;
        self.trips += 1;
        self.until = at + self.seconds(120, 600);
        self.retarget = at;
        let relief = shape.drivers() - shape.vehicles;
        self.driver = if below(&mut self.rng, 5) == 0 {
            shape.vehicles + below(&mut self.rng, relief as u32) as usize
        } else {
            self.index
        };
        self.habit = fleet::habit_of(self.driver);
        self.now.fuel = self.fuel();
        if self.now.fuel < 15_000 {
            (self.fuel_full, self.fuel_since) = (95_000, self.now.odometer);
        }
        self.prefix.clear();
        self.prefix.extend_from_slice(
            format!(
                r#"{{"vehicle_id":"{}","driver_id":"{}","trip_id":"trp-{:06}-{:04}","fleet_id":"{}","at":""#,
                fleet::vehicle_id(self.index),
                fleet::driver_id(self.driver),
                self.index,
                self.trips,
                shape.depot_id(self.index),
            )
            .as_bytes(),
        );
    }

    fn drive(&mut self, at: i64, elapsed: i64) {
        if at >= self.retarget {
            self.choose_target(at);
        }
        // Slow down in time for the trip's end: 4 km/h a second.
        let left = (self.until - at) / 1_000 * 4;
        let target = if left < self.now.speed { 0 } else { self.target };
        // A sample's g acts in the last second before it; in the time before that the speed approaches its target.
        let acting = elapsed.min(SECOND);
        let before = self.now.speed;
        let eased = 3_000 * (elapsed - acting) / SECOND;
        self.now.speed += (target - self.now.speed).clamp(-eased, eased);
        self.accelerate(target, acting);
        let bent = self.bend(elapsed);
        self.advance((before + self.now.speed) / 2, elapsed);
        self.now.g_lat = bent + self.noise(15);
        self.now.rpm = self.rpm();
        self.now.fuel = self.fuel();
    }

    fn choose_target(&mut self, at: i64) {
        let stop = below(&mut self.rng, 8) == 0;
        self.target = if stop { 0 } else { self.kind.top_speed * i64::from(40 + below(&mut self.rng, 61)) / 100 };
        self.retarget = at + if stop { self.seconds(8, 25) } else { self.seconds(6, 40) };
    }

    /// Changes the speed by `g_long` over `acting` µs; a harsh sample now and then, as the driver's habit is.
    fn accelerate(&mut self, target: i64, acting: i64) {
        let g = if self.rng.next_u32() < self.habit.harsh {
            let g = i64::from(410 + below(&mut self.rng, self.kind.harsh_to - 410));
            let change = g * SPEED_PER_G * acting / 1_000_000_000;
            let brakes = self.now.speed >= change + 1_000;
            let speeds_up = self.now.speed + change <= self.kind.top_speed;
            // One of the two is always possible; after it the driver keeps the new speed for a while.
            self.retarget = self.last + 4 * SECOND;
            if brakes && (!speeds_up || below(&mut self.rng, 5) < 3) { -g } else { g }
        } else {
            let wanted = (target - self.now.speed) * 1_000_000_000 / (SPEED_PER_G * acting);
            wanted.clamp(-self.habit.comfort, self.habit.comfort) + self.noise(12)
        };
        let speed = (self.now.speed + g * SPEED_PER_G * acting / 1_000_000_000).clamp(0, self.kind.top_speed);
        let change = speed - self.now.speed;
        let reached = change * 1_000_000_000 / (SPEED_PER_G * acting);
        // Where the speed was clamped (and not merely rounded), g is what the change of speed says.
        let rounding = 1 + 1_000_000_000 / (SPEED_PER_G * acting);
        self.now.g_long = if (reached - g).abs() > rounding { reached } else { g };
        self.now.speed = speed;
        if self.now.g_long.abs() > 400 {
            self.target = speed;
        }
    }

    /// Turns the heading by the part of the bend that fits `elapsed`; returns the lateral g, 0.001 g.
    fn bend(&mut self, elapsed: i64) -> i64 {
        let speed = self.now.speed * 10 / 36; // mm/s
        if speed < 1_000 {
            return 0;
        }
        if self.turn == 0 {
            self.turn = self.next_turn();
        }
        // 0.001 g = (0.01 degrees/s) × (mm/s) / 56,188.
        let rate = (self.habit.bend * 56_188 / speed).min(4_500);
        let most = (rate * elapsed / SECOND).max(1);
        let step = self.turn.clamp(-most, most);
        self.turn -= step;
        self.now.heading = (self.now.heading + step).rem_euclid(36_000);
        step * SECOND / elapsed * speed / 56_188
    }

    fn next_turn(&mut self) -> i64 {
        let (north, east) = (self.now.lat - self.home.0, self.now.lon - self.home.1);
        if north.abs() > RANGE || east.abs() > RANGE {
            let back = match (north.abs() > east.abs(), north > 0, east > 0) {
                (true, true, _) => 18_000,
                (true, false, _) => 0,
                (false, _, true) => 27_000,
                (false, _, false) => 9_000,
            };
            return (back - self.now.heading + 18_000).rem_euclid(36_000) - 18_000;
        }
        if self.now.speed < 60_000 && below(&mut self.rng, 40) == 0 {
            let angle = i64::from(3_000 + below(&mut self.rng, 6_001));
            return if below(&mut self.rng, 2) == 0 { angle } else { -angle };
        }
        0
    }

    /// Moves by the mean speed (0.001 km/h) over `elapsed` µs.
    fn advance(&mut self, speed: i64, elapsed: i64) {
        let distance = speed * 10 / 36 * elapsed / SECOND; // mm
        // A degree of latitude is 111.32 km: 1e-7 degrees = 11.132 mm; sines are in millionths.
        self.now.lat += distance * cosine(self.now.heading) / 11_132_000;
        let shrink = cosine(self.now.lat / 100_000).max(100_000);
        self.now.lon += distance * sine(self.now.heading) / 11_132 * 1_000 / shrink;
        self.now.odometer += distance;
    }

    fn rpm(&mut self) -> i64 {
        let noise = self.noise(25);
        if self.now.speed == 0 {
            return 780 + noise;
        }
        // Gears of 18 km/h each; more under load.
        1_150 + self.now.speed % 18_000 * 95 / 1_000 + self.now.g_long.max(0) * 2 + noise
    }

    fn fuel(&self) -> i64 {
        (self.fuel_full - (self.now.odometer - self.fuel_since) / 1_000 * self.kind.thirst / 1_000).max(0)
    }

    fn noise(&mut self, most: u32) -> i64 {
        i64::from(below(&mut self.rng, 2 * most + 1)) - i64::from(most)
    }

    /// Between `from` and `to` seconds, in µs.
    fn seconds(&mut self, from: u32, to: u32) -> i64 {
        i64::from(from * 1_000 + below(&mut self.rng, (to - from) * 1_000)) * 1_000
    }
}

/// A number below `n`, uniform but for 2^-32 × n.
pub(super) fn below(rng: &mut Pcg32, n: u32) -> u32 {
    ((u64::from(rng.next_u32()) * u64::from(n)) >> 32) as u32
}

/// sin of 0 to 90 degrees, in millionths.
const SINE: [i64; 91] = [
    0, 17_452, 34_899, 52_336, 69_756, 87_156, 104_528, 121_869, 139_173, 156_434, 173_648, 190_809, 207_912, 224_951,
    241_922, 258_819, 275_637, 292_372, 309_017, 325_568, 342_020, 358_368, 374_607, 390_731, 406_737, 422_618,
    438_371, 453_990, 469_472, 484_810, 500_000, 515_038, 529_919, 544_639, 559_193, 573_576, 587_785, 601_815,
    615_661, 629_320, 642_788, 656_059, 669_131, 681_998, 694_658, 707_107, 719_340, 731_354, 743_145, 754_710,
    766_044, 777_146, 788_011, 798_636, 809_017, 819_152, 829_038, 838_671, 848_048, 857_167, 866_025, 874_620,
    882_948, 891_007, 898_794, 906_308, 913_545, 920_505, 927_184, 933_580, 939_693, 945_519, 951_057, 956_305,
    961_262, 965_926, 970_296, 974_370, 978_148, 981_627, 984_808, 987_688, 990_268, 992_546, 994_522, 996_195,
    997_564, 998_630, 999_391, 999_848, 1_000_000,
];

/// Sine of an angle in 0.01 degrees, in millionths, linear between whole degrees.
fn sine(angle: i64) -> i64 {
    let angle = angle.rem_euclid(36_000);
    let (sign, angle) = if angle >= 18_000 { (-1, angle - 18_000) } else { (1, angle) };
    let angle = if angle > 9_000 { 18_000 - angle } else { angle };
    let (degree, part) = ((angle / 100) as usize, angle % 100);
    let low = SINE[degree];
    let high = SINE[(degree + 1).min(90)];
    sign * (low + (high - low) * part / 100)
}

fn cosine(angle: i64) -> i64 {
    sine(angle + 9_000)
}
