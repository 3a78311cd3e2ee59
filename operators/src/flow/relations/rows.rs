//! What flows between the relations, and what leaves them.

use crate::score::Totals;
use differential_dataflow::difference::{IsZero, Multiply, Semigroup};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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

/// As a difference type, so that one update maintains all sums.
impl IsZero for Totals {
    fn is_zero(&self) -> bool {
        *self == Totals::default()
    }
}

impl Semigroup for Totals {
    fn plus_equals(&mut self, o: &Self) {
        self.add(o, 1);
    }
}

impl Multiply<isize> for Totals {
    type Output = Totals;

    fn multiply(self, rhs: &isize) -> Totals {
        let mut product = Totals::default();
        product.add(&self, *rhs as i64);
        product
    }
}
