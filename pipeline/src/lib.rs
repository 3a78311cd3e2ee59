//! The job: sources, the graph, the runtime that drives it, the configuration and the command line.

pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod edge;
pub mod graph;
pub mod runtime;
pub mod simulate;
pub mod source;
