//! The relations: facts that are few and change for many reasons. Everything here is incremental; a fact, document or
//! policy that changes is a retraction and an insertion, and the rest follows.
//!
//! ```text
//! vehicles ──► timelines ────────────────────┐
//! fleets ──► tree (ancestors, cycles cut) ─┐ │
//! policies ───────────────────────► pages ─┴─┴─► trips ──► rows of trips
//! trip facts ────────────────────────────────────┘ │ completed
//!                                                  └─► drivers ──► rows of driver_scores
//!                                                        │ counted, standings
//!                                                        └─► fleets ──► rows of fleet_aggregates
//! ```
//!
//! Documents, pages and fleets are differential collections. Trips and drivers, of which there are millions, are keyed
//! operators that keep their state packed ([`scores`], docs/adr/0009).

mod fleets;
mod policies;
mod rows;
pub mod scores;
mod tree;

pub use crate::score::{DriverRow, Kinds, Totals, TripRow};
pub use rows::{FleetRow, Problem, WorstDriver};

use super::Rows;
use super::Time;
use super::keep::{Keep, Restored};
use super::sequence::Mark;
use crate::config::KernelConfig;
use crate::facts::{AnomalyFact, TripFact};
use crate::score::PolicyError;
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::control::Document;
use scores::Documents;
use std::sync::Arc;
use timely::dataflow::StreamVec;

/// What the relations are computed from.
pub struct Facts<'scope> {
    pub trips: Rows<'scope, TripFact>,
    /// Open anomalies.
    pub anomalies: Rows<'scope, AnomalyFact>,
    pub documents: Rows<'scope, Document>,
}

/// What they say.
pub struct Relations<'scope> {
    pub trips: Rows<'scope, TripRow>,
    pub drivers: Rows<'scope, DriverRow>,
    pub fleets: Rows<'scope, FleetRow>,
    pub problems: Rows<'scope, Problem>,
}

/// Builds the relations. `config`: what the trip facts keep; `epochs`: this worker's own marks. The operators begin with
/// their parts of `restored` and hand their changes to `keep`.
pub fn relations<'scope>(
    facts: Facts<'scope>,
    epochs: StreamVec<'scope, Time, Mark>,
    catalogue: Arc<Catalogue>,
    config: Arc<KernelConfig>,
    restored: &mut Restored,
    keep: Option<Keep>,
) -> Relations<'scope> {
    let tree = tree::tree(facts.documents.clone());
    let retention = config.facts_retention;
    let (policies, refused) = policies::policies(facts.documents.clone(), catalogue, config);
    let timelines = tree::timelines(facts.documents.clone());
    let documents = Documents { timelines: timelines.clone(), pages: policies::pages(policies, &tree) };
    let (trips, completed) = scores::trips(facts.trips, documents, epochs.clone(), retention, restored, keep.clone());
    let drivers = scores::drivers(completed, epochs, restored, keep);
    let anomalies = tree::locate(facts.anomalies, timelines);
    let fleets = fleets::fleets(&tree, drivers.counted, drivers.standings, anomalies);
    let problems = tree::problems(&tree, facts.documents).concat(refused);
    Relations { trips, drivers: drivers.rows, fleets, problems }
}

/// The text of a policy that was refused.
fn refusal(id: &str, version: i64, error: &PolicyError) -> Problem {
    Problem { document: format!("policies/{id}@{version}").into(), problem: format!("refused: {error}").into() }
}
