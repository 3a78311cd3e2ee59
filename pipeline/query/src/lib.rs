//! What a job has said, for people and programs: SQL over its history (`sql`), the newest values of its topics (`live`), and
//! what both look like (`schema`). Knows nothing of how it was computed.
//!
//! A crate of its own because of DataFusion, whose generics take minutes to compile: who changes the job does not wait for
//! them.

pub mod live;
pub mod schema;
pub mod sql;
