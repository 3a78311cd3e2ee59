//! The thin timely and differential wrappers that run the kernels. The only place of this crate that knows a dataflow.
//!
//! - [`sequence`]: the per-vehicle kernels as one keyed timely operator;
//! - [`payloads`]: whole trips sent as records, of each trip the content that counts;
//! - [`documents`]: control changes as a differential collection;
//! - [`relations`]: facts × reference data × policies → trips, drivers, fleets;
//! - [`keep`]: what they hand over at a checkpoint, and begin with after a restart.

pub mod documents;
pub mod keep;
pub mod payloads;
pub mod relations;
pub mod sequence;

/// The timestamp of the dataflow: the epoch.
pub type Time = u64;

/// A differential collection at epochs.
pub type Rows<'scope, D> = differential_dataflow::VecCollection<'scope, Time, D, isize>;
