//! Recorded bindings: the epochs of a past run, to be handed out again exactly.

use super::error::SourceError;
use drivetrain_schemas::reading::Origin;
use drivetrain_schemas::time::format_rfc3339;
use drivetrain_sinks::manifest;
use drivetrain_sinks::message::{Binding, Ticket};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

/// Epochs to repeat before (or instead of) reading on: same records an epoch, same wall times, idle sets and control
/// changes. Which worker gets which records may differ; nothing depends on it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In their order, each one epoch after the other.
    pub tickets: Vec<Ticket>,
    /// Whether to read on behind them (restart), or to stop there (`replay --bindings`).
    pub go_on: bool,
}

impl Default for Plan {
    /// Nothing to repeat.
    fn default() -> Self {
        Self { tickets: Vec::new(), go_on: true }
    }
}

impl Plan {
    /// Whether it begins with epoch 0, which has where all partitions began that were there.
    pub(crate) fn is_from_the_start(&self) -> bool {
        self.tickets.first().is_some_and(|t| t.epoch == 0)
    }

    /// Where each origin begins, as far as these epochs say so: epoch 0, and the first binding of a partition that came
    /// later.
    pub(crate) fn starts(&self) -> BTreeMap<Arc<Origin>, Binding> {
        let mut starts = BTreeMap::new();
        for ticket in &self.tickets {
            for binding in &ticket.bindings {
                let end = if ticket.epoch == 0 { Some(binding.end) } else { binding.start };
                let Some(end) = end.filter(|_| !starts.contains_key(&binding.origin)) else { continue };
                let clock = binding.clock.filter(|_| ticket.epoch == 0);
                starts.insert(binding.origin.clone(), Binding { end, clock, start: None, ..binding.clone() });
            }
        }
        starts
    }
}

/// Reads bindings as the committer archives them: one ticket a line, as JSON. `path` is one such file, or the directory
/// `<data>/bindings` with one file a generation, of which the highest one's tickets count. They begin with epoch 0: what
/// later epochs come to depends on what was before.
///
/// # Errors
/// [`SourceError::Missing`], [`SourceError::Unreadable`], [`SourceError::Expired`], and [`SourceError::Bindings`] for a
/// line that is no ticket or an epoch that is missing.
pub fn read_bindings(path: &Path) -> Result<Vec<Ticket>, SourceError> {
    let tickets = if path.is_dir() {
        let tickets = manifest::bindings(path)
            .map_err(|e| SourceError::Unreadable { path: e.path, reason: e.source.to_string() })?;
        tickets.into_values().enumerate().map(|(i, ticket)| (i + 1, ticket)).collect()
    } else {
        read_file(path)?
    };
    let pairs = tickets.iter().zip(tickets.iter().skip(1));
    for ((_, before), (line, ticket)) in pairs {
        if ticket.epoch != before.epoch + 1 {
            let reason = format!("epoch {} follows epoch {}: one is missing", ticket.epoch, before.epoch);
            return Err(SourceError::Bindings { path: path.to_path_buf(), line: *line, reason });
        }
    }
    match tickets.first() {
        None => Err(SourceError::NoEpochs { path: path.to_path_buf() }),
        Some((_, first)) if first.epoch > 0 => Err(SourceError::Expired {
            path: path.to_path_buf(),
            epoch: first.epoch,
            ended: format_rfc3339(first.wall),
            last: tickets.last().map_or(first.epoch, |(_, last)| last.epoch),
        }),
        Some(_) => Ok(tickets.into_iter().map(|(_, ticket)| ticket).collect()),
    }
}

/// The tickets of one file with their lines.
fn read_file(path: &Path) -> Result<Vec<(usize, Ticket)>, SourceError> {
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => SourceError::Missing { path: path.to_path_buf() },
        _ => SourceError::Unreadable { path: path.to_path_buf(), reason: e.to_string() },
    };
    let (mut tickets, mut shared) = (Vec::new(), manifest::Shared::default());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(unreadable)?;
        if line.trim().is_empty() {
            continue;
        }
        let error = |reason| SourceError::Bindings { path: path.to_path_buf(), line: i + 1, reason };
        let mut ticket: Ticket = serde_json::from_str(&line).map_err(|e| error(format!("not a ticket: {e}")))?;
        shared.share(&mut ticket);
        tickets.push((i + 1, ticket));
    }
    Ok(tickets)
}
