//! Files as input: found and checked before anything is written, then read by one thread a source.
//!
//! The files of a source are one partition, in the order given; each file is an origin of its own. A record's position
//! is the number of its (first) line from 1, a header included, or its row from 1 in Parquet.

mod inputs;
mod lines;
mod reader;

pub use inputs::{FileInput, resolve};
pub(crate) use reader::{Reading, open, partition};
