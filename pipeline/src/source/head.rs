//! The first records of a file, for `drivetrain check`.

use super::chunk::Chunk;
use super::config::SourceSpec;
use super::error::SourceError;
use super::feed::{Fed, Progress};
use super::files::{Reading, open, partition, resolve};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The first `records` records of `input` (a file, a directory, or `SOURCE=PATH`) and the index of its source.
///
/// # Errors
/// As [`resolve`], and what is found wrong on the way.
pub fn head(
    sources: &[SourceSpec],
    input: &str,
    records: usize,
    limit: usize,
) -> Result<(u16, Vec<Chunk>), SourceError> {
    let files = resolve(&[input.to_string()], sources)?;
    let source = files.first().map_or(0, |file| file.source);
    let spec = sources.get(usize::from(source)).cloned().ok_or(SourceError::NoSource)?;
    let mut feed = open(Reading {
        source,
        partition: partition(&spec.name),
        spec,
        files,
        done: BTreeMap::new(),
        limit,
        progress: Arc::new(Progress::default()),
        wake: std::thread::current(),
    })?;
    let (mut chunks, mut left) = (Vec::new(), records);
    while left > 0 {
        match feed.next(left)? {
            Fed::Chunk { chunk, .. } => {
                left = left.saturating_sub(chunk.len());
                chunks.push(chunk);
            }
            Fed::Nothing | Fed::CaughtUp => std::thread::park_timeout(Duration::from_millis(50)),
            Fed::Ended => break,
        }
    }
    Ok((source, chunks))
}
