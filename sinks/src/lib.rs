//! Where results go: the Parquet history, the compacted topics and their local form, the progress log, and the
//! protocol that commits all of them together. Depends on `schemas` only; knows nothing of how results are computed.
//!
//! ```text
//!  message ──► commit ──┬──► history    Parquet, staged, then published
//!                       ├──► live       compacted topics as local files   ┐ one Outlet:
//!                       ├──► kafka      compacted topics                  ┘ one or the other
//!                       ├──► checkpoint operators' states
//!                       └──► progress   what has happened
//!  restart: progress ──► recovery ──► where and with what all of these go on
//!  all of these on a disk, or on an S3-like store: store
//!  at any time: housekeeping ──► fewer and larger history files, without what is old
//! ```

pub mod checkpoint;
pub mod commit;
pub mod digest;
pub mod failpoint;
pub mod history;
pub mod housekeeping;
pub mod kafka;
pub mod live;
pub mod manifest;
pub mod message;
pub mod outlet;
pub mod progress;
pub mod recovery;
pub mod store;
pub mod units;

mod background;
mod files;

pub use files::FileError;
