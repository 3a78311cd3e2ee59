//! Recorded bindings: the epochs of a past run, to be handed out again exactly.

use super::error::SourceError;
use drivetrain_sinks::message::Ticket;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Epochs to repeat before (or instead of) reading on: same records an epoch, same wall times, idle sets and control
/// changes. Which worker gets which records may differ; nothing depends on it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In their order, each one epoch after the other.
    pub tickets: Vec<Ticket>,
    /// Whether to read on behind them (restart), or to stop there (`replay --bindings`).
    pub go_on: bool,
}

/// Reads bindings as the committer archives them: one ticket a line, as JSON.
///
/// # Errors
/// [`SourceError::Missing`], [`SourceError::Unreadable`], and [`SourceError::Bindings`] for a line that is no ticket or
/// an epoch that is missing.
pub fn read_bindings(path: &Path) -> Result<Vec<Ticket>, SourceError> {
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => SourceError::Missing { path: path.to_path_buf() },
        _ => SourceError::Unreadable { path: path.to_path_buf(), reason: e.to_string() },
    };
    let mut tickets: Vec<Ticket> = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(unreadable)?;
        if line.trim().is_empty() {
            continue;
        }
        let error = |reason| SourceError::Bindings { path: path.to_path_buf(), line: i + 1, reason };
        let ticket: Ticket = serde_json::from_str(&line).map_err(|e| error(format!("not a ticket: {e}")))?;
        if let Some(before) = tickets.last().map(|t| t.epoch)
            && ticket.epoch != before + 1
        {
            return Err(error(format!("epoch {} follows epoch {before}: one is missing", ticket.epoch)));
        }
        tickets.push(ticket);
    }
    Ok(tickets)
}
