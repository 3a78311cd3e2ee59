//! The relations: facts that are few and change for many reasons. Everything here is incremental; a fact, document or
//! policy that changes is a retraction and an insertion, and the rest follows.
//!
//! ```text
//! vehicles ──► timeline ─┐
//! trip facts ────────────┴► located (trip, fleet) ──┐
//! fleets ──► tree (ancestors, cycles cut) ──► book ─┴► scored ──► trips
//! policies ────────────────────────────────► ┘            │
//!                                              completed ──► drivers ──► counted trips ──► fleets
//! ```

mod drivers;
mod fleets;
mod policies;
mod rows;
mod tree;

pub use rows::{DriverRow, DriverTrip, FleetRow, Kinds, Problem, Scored, Totals, TripRow, WorstDriver};

use super::Rows;
use crate::config::KernelConfig;
use crate::facts::{AnomalyFact, TripFact};
use crate::score::PolicyError;
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::control::Document;
use std::sync::Arc;

/// What the relations are computed from.
pub struct Facts<'scope> {
    pub trips: Rows<'scope, TripFact>,
    /// Anomalies; only the open ones matter here.
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

/// Builds the relations. `config`: what the trip facts keep.
pub fn relations<'scope>(
    facts: Facts<'scope>,
    catalogue: Arc<Catalogue>,
    config: Arc<KernelConfig>,
) -> Relations<'scope> {
    let tree = tree::tree(facts.documents.clone());
    let (policies, refused) = policies::policies(facts.documents.clone(), catalogue, config);
    let located = tree::locate(facts.trips, facts.anomalies, facts.documents.clone());
    let scored = policies::score(located.trips, policies, &tree);
    let trips = scored.clone().flat_map(|scored| scored.row());
    let (drivers, counted) = drivers::drivers(scored);
    let fleets = fleets::fleets(&tree, counted, drivers.clone(), located.anomalies);
    let problems = tree::problems(&tree, facts.documents).concat(refused);
    Relations { trips, drivers, fleets, problems }
}

/// The text of a policy that was refused.
fn refusal(id: &str, version: i64, error: &PolicyError) -> Problem {
    Problem { document: format!("policies/{id}@{version}").into(), problem: format!("refused: {error}").into() }
}
