//! What is computed. Pure kernels (`(&Config, &mut State, Input) -> Output`, no dataflow, no broker, no clock), each
//! beside a slow reference; and [`flow`], the thin timely and differential wrappers that run them.
//!
//! ```text
//!  readings of one vehicle, one epoch
//!        │
//!        ▼                                   ┌─► trips ──► events
//!  sequence (order, duplicates, rewind) ──► vehicle ─┼─► windows
//!        │                                   └─► detect
//!        ▼
//!  Outcome: facts with differences, accepted readings, late ones, counts
//! ```

pub mod config;
pub mod detect;
pub mod edge;
pub mod events;
pub mod facts;
pub mod flow;
mod late;
mod pack;
pub mod payloads;
pub mod quality;
pub mod sample;
pub mod score;
pub mod sequence;
#[cfg(test)]
mod testing;
pub mod trips;
pub mod vehicle;
pub mod windows;
