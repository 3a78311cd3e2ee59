//! Driver scores over the rolling horizon, and which trips count in them.

use super::{DriverRow, DriverTrip, Scored, Totals};
use crate::flow::Rows;
use crate::score::driver_score;
use differential_dataflow::difference::Semigroup;
use drivetrain_schemas::policy::Status;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the reduction over a driver's trips says: both are functions of the same set of trips, so it is read once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Said {
    Score(Box<DriverRow>),
    Counts(Arc<DriverTrip>),
}

/// The rows of `driver_scores`, and the trips that count under active policies.
pub(super) fn drivers<'scope>(
    scored: Rows<'scope, Scored>,
) -> (Rows<'scope, DriverRow>, Rows<'scope, Arc<DriverTrip>>) {
    let trips = scored.flat_map(driver_trip).map(|trip| (trip.driver.clone(), Arc::new(trip)));
    let said = trips.reduce_named("drivers", |driver, trips, output| {
        let trips: Vec<&Arc<DriverTrip>> = trips.iter().map(|(trip, _)| *trip).collect();
        output.extend(judge(driver, &trips).into_iter().map(|said| (said, 1)));
    });
    let rows = said.clone().flat_map(|(_, said)| match said {
        Said::Score(row) => Some(*row),
        Said::Counts(_) => None,
    });
    let counted = said.flat_map(|(_, said)| match said {
        Said::Score(_) => None,
        Said::Counts(trip) => Some(trip),
    });
    (rows, counted)
}

/// A completed, scored trip with a driver.
fn driver_trip(scored: Scored) -> Option<DriverTrip> {
    let (policy, score) = scored.score?;
    let fact = &scored.fact;
    if fact.open {
        return None;
    }
    Some(DriverTrip {
        ended_at: fact.ended_at,
        trip_id: fact.trip_id.clone(),
        vehicle: fact.vehicle.clone(),
        driver: fact.driver.clone()?,
        fleet: scored.fleet,
        policy,
        totals: Totals::of(fact, &score),
        score,
    })
}

/// `trips` ascending, so that the newest is the last.
fn judge(driver: &Arc<str>, trips: &[&Arc<DriverTrip>]) -> Vec<Said> {
    let active = |t: &&&Arc<DriverTrip>| t.policy.status == Status::Active;
    let Some(newest) = trips.iter().rev().find(active).or(trips.last()) else { return Vec::new() };
    let mut said = Vec::new();
    // By policy (whatever its version): the sums, and the newest trip's version, whose rule of the driver holds.
    let mut policies: BTreeMap<Arc<str>, (Totals, &Arc<DriverTrip>)> = BTreeMap::new();
    for trip in trips {
        if trip.ended_at <= newest.ended_at.saturating_sub(trip.policy.driver.horizon) {
            continue;
        }
        let entry = policies.entry(trip.policy.policy_id.clone()).or_insert_with(|| (Totals::default(), trip));
        entry.0.plus_equals(&trip.totals);
        entry.1 = trip;
        if trip.policy.status == Status::Active {
            said.push(Said::Counts((*trip).clone()));
        }
    }
    for (id, (totals, last)) in policies {
        let score = driver_score(&last.policy, totals.weighted, totals.exposure);
        said.push(Said::Score(Box::new(DriverRow {
            driver: driver.clone(),
            policy: last.policy.clone(),
            score,
            band: score.and_then(|s| last.policy.driver.band(s)),
            totals,
            fleet: newest.fleet.clone(),
            newest: id == newest.policy.policy_id,
        })));
    }
    said
}
