//! Fleet aggregates up the hierarchy. Each part is kept in stages (by own fleet, by bucket, by histogram), so that a
//! change of one trip never reads all of a root's trips or drivers again.

use super::tree::Tree;
use super::{FleetRow, WorstDriver};
use crate::facts::AnomalyFact;
use crate::flow::Rows;
use crate::score::{Counted, Standing, Totals};
use differential_dataflow::AsCollection;
use differential_dataflow::difference::{Multiply, Semigroup};
use differential_dataflow::operators::CountTotal;
use drivetrain_schemas::fixed::div_round;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use timely::dataflow::operators::vec::Map;

/// How many of the lowest drivers are shown.
const WORST: usize = 5;
/// Buckets of drivers by hash, for the lowest ones.
const BUCKETS: u64 = 64;

/// One part of a fleet's row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Part {
    Parent(Arc<str>),
    Depth(i64),
    Totals(Totals),
    Vehicles(i64),
    Drivers(i64),
    Median(i64),
    Worst(Vec<WorstDriver>),
    Anomalies(i64),
}

type Parts<'scope> = Rows<'scope, (Arc<str>, Part)>;

pub(super) fn fleets<'scope>(
    tree: &Tree<'scope>,
    counted: Rows<'scope, Counted>,
    standings: Rows<'scope, Standing>,
    anomalies: Rows<'scope, (Arc<str>, Arc<AnomalyFact>)>,
) -> Rows<'scope, FleetRow> {
    let counted = counted.map(|counted| (counted.fleet.clone(), counted));
    let seen = tree
        .nodes
        .clone()
        .concat(counted.clone().map(|(fleet, _)| fleet))
        .concat(anomalies.clone().map(|(fleet, _)| fleet))
        .distinct();
    let upwards = seen
        .clone()
        .map(|fleet| (fleet.clone(), fleet))
        .concat(tree.ancestors.clone().map(|(fleet, (above, _))| (fleet, above)));
    let depth = tree.ancestors.clone().map(|(fleet, _)| fleet).count_total();
    let parts = seen
        .map(|fleet| (fleet, Part::Depth(0)))
        .concat(depth.map(|(fleet, depth)| (fleet, Part::Depth(depth as i64))))
        .concat(tree.parents.clone().map(|(fleet, parent)| (fleet, Part::Parent(parent))))
        .concat(totals(counted.clone(), upwards.clone()))
        .concat(distinct(counted.clone().map(|(f, t)| (f, t.vehicle.clone())), upwards.clone(), Part::Vehicles))
        .concat(distinct(counted.map(|(f, t)| (f, t.driver.clone())), upwards.clone(), Part::Drivers))
        .concat(scores(standings, upwards.clone()))
        .concat(open_anomalies(anomalies, upwards));
    parts
        .reduce_named("fleets", |fleet, parts, output| {
            let parts: Vec<&Part> = parts.iter().map(|(part, _)| *part).collect();
            output.push((row(fleet, &parts), 1));
        })
        .map(|(_, row)| row)
}

fn row(fleet: &Arc<str>, parts: &[&Part]) -> FleetRow {
    let mut row = FleetRow {
        fleet: fleet.clone(),
        parent: None,
        depth: 0,
        vehicles: 0,
        drivers: 0,
        totals: Totals::default(),
        score: None,
        score_min: None,
        score_p50: None,
        worst: Vec::new(),
        anomalies: 0,
    };
    for part in parts {
        match part {
            Part::Parent(parent) => row.parent = Some(parent.clone()),
            Part::Depth(depth) => row.depth = row.depth.max(*depth),
            Part::Totals(totals) => row.totals = totals.clone(),
            Part::Vehicles(n) => row.vehicles = *n,
            Part::Drivers(n) => row.drivers = *n,
            Part::Median(score) => row.score_p50 = Some(*score),
            Part::Worst(worst) => row.worst = worst.clone(),
            Part::Anomalies(n) => row.anomalies = *n,
        }
    }
    row.score_min = row.worst.first().map(|w| w.score);
    if row.totals.exposure > 0 {
        row.score = Some(div_round(row.totals.weighted, row.totals.exposure) as i64);
    }
    row
}

/// Sums by own fleet as a difference, then over the (few) fleets below.
fn totals<'scope>(
    counted: Rows<'scope, (Arc<str>, Counted)>,
    upwards: Rows<'scope, (Arc<str>, Arc<str>)>,
) -> Parts<'scope> {
    let own = counted
        .inner
        .map(|((fleet, counted), time, diff)| (fleet, time, counted.totals.multiply(&diff)))
        .as_collection()
        .count_total();
    own.join_map(upwards, |fleet, totals, above| (above.clone(), (fleet.clone(), totals.clone()))).reduce_named(
        "fleet totals",
        |_above, below, output| {
            let mut sum = Totals::default();
            below.iter().for_each(|((_, totals), _)| sum.plus_equals(totals));
            output.push((Part::Totals(sum), 1));
        },
    )
}

/// How many distinct members each fleet has, with those of the fleets below.
fn distinct<'scope>(
    members: Rows<'scope, (Arc<str>, Arc<str>)>,
    upwards: Rows<'scope, (Arc<str>, Arc<str>)>,
    part: fn(i64) -> Part,
) -> Parts<'scope> {
    members
        .distinct()
        .join_map(upwards, |_, member, above| (above.clone(), member.clone()))
        .distinct()
        .map(|(fleet, _)| fleet)
        .count_total()
        .map(move |(fleet, n)| (fleet, part(n as i64)))
}

fn open_anomalies<'scope>(
    anomalies: Rows<'scope, (Arc<str>, Arc<AnomalyFact>)>,
    upwards: Rows<'scope, (Arc<str>, Arc<str>)>,
) -> Parts<'scope> {
    let own = anomalies.map(|(fleet, _)| fleet).count_total();
    own.join_map(upwards, |fleet, n, above| (above.clone(), (fleet.clone(), *n as i64)))
        .reduce_named("fleet anomalies", |_above, below, output| {
            output.push((Part::Anomalies(below.iter().map(|((_, n), _)| n).sum()), 1))
        })
}

/// The lowest drivers and the median of the drivers' live scores.
fn scores<'scope>(standings: Rows<'scope, Standing>, upwards: Rows<'scope, (Arc<str>, Arc<str>)>) -> Parts<'scope> {
    let scores = standings
        .map(|Standing { fleet, score, driver }| (fleet, WorstDriver { score, driver }))
        .join_map(upwards, |_, driver, above| (above.clone(), driver.clone()));
    worst(scores.clone()).concat(median(scores.map(|(fleet, driver)| (fleet, driver.score))))
}

/// The lowest of each hash bucket, then the lowest of those.
fn worst<'scope>(scores: Rows<'scope, (Arc<str>, WorstDriver)>) -> Parts<'scope> {
    scores
        .map(|(fleet, d)| ((fleet, drivetrain_schemas::key::hash(&d.driver) % BUCKETS), d))
        .reduce_named("lowest by bucket", |_, drivers, output| {
            output.extend(drivers.iter().take(WORST).map(|(d, _)| ((*d).clone(), 1)));
        })
        .map(|((fleet, _), driver)| (fleet, driver))
        .reduce_named("lowest", |_, drivers, output| {
            let lowest = drivers.iter().take(WORST).map(|(d, _)| (*d).clone()).collect();
            output.push((Part::Worst(lowest), 1));
        })
}

/// The lower median: a histogram by whole points says which points it is in and where, then only those are read.
fn median<'scope>(scores: Rows<'scope, (Arc<str>, i64)>) -> Parts<'scope> {
    let by_point = scores.map(|(fleet, score)| ((fleet, score.div_euclid(1_000_000)), score));
    let place = by_point
        .clone()
        .map(|(key, _)| key)
        .count_total()
        .map(|((fleet, point), n)| (fleet, (point, n)))
        .reduce_named("median's point", |_fleet, histogram, output| {
            let all: isize = histogram.iter().map(|((_, n), _)| n).sum();
            let mut rank = (all - 1) / 2;
            for ((point, n), _) in histogram {
                if rank < *n {
                    output.push(((*point, rank), 1isize));
                    return;
                }
                rank -= n;
            }
        })
        .map(|(fleet, (point, rank))| ((fleet, point), rank));
    // The list of a point's scores is read when the median is in it, and cut to what can be the answer by its rank.
    by_point
        .reduce_named("scores by point", |_, scores, output| {
            output.push((scores.iter().map(|(score, n)| (**score, *n)).collect::<Vec<_>>(), 1isize));
        })
        .join_map(place, |(fleet, _), scores: &Vec<(i64, isize)>, rank| {
            (fleet.clone(), Part::Median(nth(scores, *rank)))
        })
}

fn nth(scores: &[(i64, isize)], mut rank: isize) -> i64 {
    for (score, n) in scores {
        if rank < *n {
            return *score;
        }
        rank -= n;
    }
    scores.last().map_or(0, |(score, _)| *score)
}
