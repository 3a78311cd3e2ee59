//! Input: one thread reads all sources, forms epochs, and hands raw records to the workers, which decode them.
//!
//! ```text
//!  files ─► reader thread a source ─┐                     ┌─► Chunk (≤ chunk_records of one origin) ─► worker k, in turn
//!  topics ─► queues of partitions ──┼─► source thread ────┼─► Control (changes of reference data)   ─► worker 0
//!  control topics and files ────────┘   align, bind, tick └─► Epoch at its end: to every worker; Ticket: to the committer
//! ```
//!
//! The contract with the workers: per worker the messages come in the order of epochs; all chunks and control changes of
//! an epoch come before its [`ToWorker::Epoch`]; after the last one the channel is closed. Epoch 0 holds the reference
//! data that was there at the start, and its bindings are the offsets at which the partitions begin. Every later epoch
//! binds each origin read in it to the end of what was read.

mod align;
mod bindings;
mod chunk;
mod config;
mod control;
mod copied;
mod error;
mod feed;
pub mod files;
mod head;
pub mod kafka;
mod lanes;
mod outlet;
mod remote;
mod run;
mod ticker;

pub use align::Peek;
pub use bindings::{Plan, read_bindings};
pub use chunk::{Chunk, ChunkData, Lines};
pub use config::{Format, SourceConfig, SourceSpec, TextFormat};
pub use control::Reference;
pub use error::SourceError;
pub use feed::Progress;
pub use head::head;
pub use kafka::{KafkaSettings, StartAt};
pub use outlet::{Outlet, ToWorker};
pub use remote::RemoteChunk;
pub use run::{Input, Job, Resume, SourceSummary, start};
pub use ticker::{EpochConfig, EpochSettings, Mode, Pending};

#[cfg(test)]
mod tests;
