//! The edge of the dataflow: facts become rows and live documents. Here, and only here, integers become floats.

mod live;
mod rows;

pub use live::{anomaly_document, driver_document, fleet_document, trip_document, vehicle_documents};
pub use rows::{anomaly_row, driver_row, event_row, fleet_row, problem_row, quality_row, trip_row, window_row};

use drivetrain_schemas::catalogue::Catalogue;

/// Decimals of a signal; 6 for one that the catalogue doesn't have.
pub(crate) fn decimals(catalogue: &Catalogue, signal: u16) -> u32 {
    catalogue.signals.get(usize::from(signal)).map_or(6, |s| s.decimals)
}

/// Name of a signal.
pub(crate) fn name(catalogue: &Catalogue, signal: u16) -> &str {
    catalogue.signals.get(usize::from(signal)).map_or("", |s| s.name.as_str())
}
