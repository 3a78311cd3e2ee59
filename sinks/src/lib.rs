//! Where results go: the Parquet history, the compacted topics and their local form, the progress log, and the
//! protocol that commits all of them together. Depends on `schemas` only; knows nothing of how results are computed.

pub mod message;
