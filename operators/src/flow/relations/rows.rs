//! What flows between the relations, and what leaves them.

use crate::facts::TripFact;
use crate::score::{ResolvedPolicy, TripScore};
use differential_dataflow::difference::{IsZero, Multiply, Semigroup};
use drivetrain_schemas::policy::Status;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Counts, by [`drivetrain_schemas::policy::EventKind`] in its order.
pub type Kinds = [i64; 6];

/// A trip, its fleet, and its score under one policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scored {
    pub fact: Arc<TripFact>,
    pub fleet: Option<Arc<str>>,
    /// None: no policy governs it.
    pub score: Option<(Arc<ResolvedPolicy>, TripScore)>,
}

/// A row of `trips` (and of `trip_scores`).
pub type TripRow = Scored;

impl Scored {
    /// This trip as a row of `trips`: shadow scores are none.
    pub(super) fn row(self) -> Option<TripRow> {
        let shadow = self.score.as_ref().is_some_and(|(policy, _)| policy.status == Status::Shadow);
        (!shadow).then_some(self)
    }
}

/// What a driver's score needs of one completed trip.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriverTrip {
    /// First, so that the newest trip of a driver is the last in order.
    pub ended_at: i64,
    pub trip_id: Arc<str>,
    pub vehicle: Arc<str>,
    pub driver: Arc<str>,
    pub fleet: Option<Arc<str>>,
    pub policy: Arc<ResolvedPolicy>,
    pub score: TripScore,
    pub totals: Totals,
}

/// A row of `driver_scores`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriverRow {
    pub driver: Arc<str>,
    pub policy: Arc<ResolvedPolicy>,
    /// At six decimals.
    pub score: Option<i64>,
    pub band: Option<Arc<str>>,
    pub totals: Totals,
    /// The fleet of the driver's newest trip.
    pub fleet: Option<Arc<str>>,
    /// This policy governs the newest trip, so that this row is the live one.
    pub newest: bool,
}

/// A row of `fleet_aggregates`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FleetRow {
    pub fleet: Arc<str>,
    pub parent: Option<Arc<str>>,
    pub depth: i64,
    pub vehicles: i64,
    pub drivers: i64,
    pub totals: Totals,
    /// At six decimals.
    pub score: Option<i64>,
    pub score_min: Option<i64>,
    pub score_p50: Option<i64>,
    pub worst: Vec<WorstDriver>,
    pub anomalies: i64,
}

/// One of a fleet's lowest drivers: lowest score first, ties by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorstDriver {
    pub score: i64,
    pub driver: Arc<str>,
}

/// A row of `reference_problems`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Problem {
    pub document: Arc<str>,
    pub problem: Arc<str>,
}

/// Sums over trips, as a difference type: one update maintains them all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Totals {
    pub trips: i64,
    /// Trips whose distance is known.
    pub measured: i64,
    /// As [`TripFact::distance`].
    pub distance: i128,
    /// µs.
    pub duration: i64,
    /// Trips whose speeding time is known, and its sum, µs.
    pub observed: i64,
    pub speeding: i64,
    pub counts: Kinds,
    /// Σ score × exposure (score at six decimals) and Σ exposure.
    pub weighted: i128,
    pub exposure: i128,
}

impl Totals {
    /// The totals of one trip.
    pub fn of(fact: &TripFact, score: &TripScore) -> Self {
        Totals {
            trips: 1,
            measured: i64::from(fact.distance.is_some()),
            distance: fact.distance.unwrap_or(0),
            duration: fact.duration,
            observed: i64::from(fact.speeding.is_some()),
            speeding: fact.speeding.unwrap_or(0),
            counts: score.counts,
            weighted: i128::from(score.score) * score.exposure,
            exposure: score.exposure,
        }
    }

    /// Harsh braking, rapid acceleration and harsh cornering together.
    pub fn harsh(&self) -> i64 {
        self.counts[0] + self.counts[1] + self.counts[2]
    }
}

impl IsZero for Totals {
    fn is_zero(&self) -> bool {
        *self == Totals::default()
    }
}

impl Semigroup for Totals {
    fn plus_equals(&mut self, o: &Self) {
        self.trips += o.trips;
        self.measured += o.measured;
        self.distance += o.distance;
        self.duration += o.duration;
        self.observed += o.observed;
        self.speeding += o.speeding;
        self.counts.iter_mut().zip(o.counts).for_each(|(a, b)| *a += b);
        self.weighted += o.weighted;
        self.exposure += o.exposure;
    }
}

impl Multiply<isize> for Totals {
    type Output = Totals;

    fn multiply(self, rhs: &isize) -> Totals {
        let n = *rhs as i64;
        Totals {
            trips: self.trips * n,
            measured: self.measured * n,
            distance: self.distance * i128::from(n),
            duration: self.duration * n,
            observed: self.observed * n,
            speeding: self.speeding * n,
            counts: self.counts.map(|c| c * n),
            weighted: self.weighted * i128::from(n),
            exposure: self.exposure * i128::from(n),
        }
    }
}
