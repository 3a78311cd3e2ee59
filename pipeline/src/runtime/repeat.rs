//! `replay --bindings`: what is asked for is compared with what was recorded, before anything is written.
//!
//! ```text
//!  bindings of files  + INPUT ─► the files are read        bindings of topics ─► the topics are read, as far as bound;
//!  bindings of files, no INPUT ─► refused                                        nothing is written to Kafka
//!                                                          bindings of topics + INPUT ─► refused
//! ```

use super::{JobError, JobOptions, Mode};
use drivetrain_schemas::reading::Origin;
use drivetrain_sinks::message::Ticket;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// The data directory of the repeated run is another one: `--fresh` would delete what is to be repeated.
pub(super) fn is_elsewhere(bindings: &Path, data: &Path) -> Result<(), JobError> {
    let (Ok(bindings), Ok(whole)) = (bindings.canonicalize(), data.canonicalize()) else { return Ok(()) };
    if !bindings.starts_with(&whole) {
        return Ok(());
    }
    let data = data.display();
    Err(JobError::Config(format!(
        "--data {data}: the bindings are in it, so it is the directory of the run that is to be repeated; name a new one"
    )))
}

/// Whether the recorded epochs are of topics, which are then read again.
///
/// # Errors
/// When that is not what the command line and the configuration say.
pub(super) fn is_of_topics(options: &JobOptions, tickets: &[Ticket]) -> Result<bool, JobError> {
    let Mode::Replay { inputs, .. } = &options.mode else { return Ok(false) };
    let origins: BTreeSet<&Arc<Origin>> = tickets.iter().flat_map(|t| &t.bindings).map(|b| &b.origin).collect();
    let topics = |source: &str| options.config.sources.get(source).map_or(&[][..], |s| s.topics.as_slice());
    let is_topic = |origin: &&&Arc<Origin>| topics(&origin.source).iter().any(|topic| **topic == *origin.name);
    // Only of a topic an id is recorded, and more than one partition.
    let had_id: BTreeSet<&str> = tickets
        .iter()
        .flat_map(|t| &t.bindings)
        .filter(|b| b.topic_id.is_some() || b.origin.partition > 0)
        .map(|b| &*b.origin.name)
        .collect();
    let wrong = |text: String| Err(JobError::Config(text));
    if !inputs.is_empty() {
        return match origins.iter().find(|o| had_id.contains(&*o.name)) {
            Some(origin) => wrong(format!(
                "--bindings: they are of a run on Kafka (topic {:?}), which is read again from there; leave INPUT out",
                origin.name
            )),
            None => Ok(false),
        };
    }
    if options.at.is_some() {
        return wrong("--at is for files; records of topics have a time".into());
    }
    match origins.iter().find(|origin| !is_topic(origin)) {
        None => Ok(true),
        Some(origin) if had_id.contains(&*origin.name) => wrong(format!(
            "--bindings: topic {:?} was read by source {:?}, and the configuration has no such topic there; give the \
             configuration of then",
            origin.name, origin.source
        )),
        Some(origin) => wrong(format!(
            "--bindings: they are of a replay of files (such as {}); give these files as INPUT",
            origin.name
        )),
    }
}
