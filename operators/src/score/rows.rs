//! What scoring says of trips and drivers.

use super::{ResolvedPolicy, TripScore};
use crate::facts::TripFact;
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
    /// Whether it is a row of `trips`: shadow scores are none.
    pub fn is_row(&self) -> bool {
        self.score.as_ref().is_none_or(|(policy, _)| policy.status != Status::Shadow)
    }

    /// What the driver's score needs of it, when it is completed, scored, and has a driver.
    pub fn driver_trip(&self) -> Option<DriverTrip> {
        let (policy, score) = self.score.as_ref()?;
        let fact = &self.fact;
        if fact.open {
            return None;
        }
        Some(DriverTrip {
            driver: fact.driver.clone()?,
            ended_at: fact.ended_at,
            trip_id: fact.trip_id.clone(),
            vehicle: fact.vehicle.clone(),
            fleet: self.fleet.clone(),
            policy: policy.clone(),
            totals: Totals::of(fact, score),
            sealed: false,
        })
    }
}

/// What a driver's score needs of one completed trip.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriverTrip {
    pub driver: Arc<str>,
    pub ended_at: i64,
    pub trip_id: Arc<str>,
    pub vehicle: Arc<str>,
    pub fleet: Option<Arc<str>>,
    pub policy: Arc<ResolvedPolicy>,
    pub totals: Totals,
    /// It stays as it is ([`super::trips`]).
    pub sealed: bool,
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

/// The trips of a driver that count under active policies, with one vehicle in one fleet, together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Counted {
    pub fleet: Arc<str>,
    pub vehicle: Arc<str>,
    pub driver: Arc<str>,
    pub totals: Totals,
}

/// A driver's live score, in the fleet of the newest trip.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Standing {
    pub fleet: Arc<str>,
    /// At six decimals.
    pub score: i64,
    pub driver: Arc<str>,
}

/// Sums over trips.
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

    /// Adds `n` times these.
    pub fn add(&mut self, o: &Self, n: i64) {
        let wide = i128::from(n);
        self.trips += o.trips * n;
        self.measured += o.measured * n;
        self.distance += o.distance * wide;
        self.duration += o.duration * n;
        self.observed += o.observed * n;
        self.speeding += o.speeding * n;
        self.counts.iter_mut().zip(o.counts).for_each(|(a, b)| *a += b * n);
        self.weighted += o.weighted * wide;
        self.exposure += o.exposure * wide;
    }

    /// Harsh braking, rapid acceleration and harsh cornering together.
    pub fn harsh(&self) -> i64 {
        self.counts[0] + self.counts[1] + self.counts[2]
    }
}
