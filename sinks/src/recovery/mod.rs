//! A start: what happened before is found in the progress log, finished, and loaded (DESIGN §8, steps 0, 7 and 8).
//!
//! ```text
//!                       ┌ nothing committed ─► New: begin with epoch 0
//!  progress log ─► Past ┼ the input had ended ► Finished: nothing to go on with
//!  (outlet)             └ else ───────────────► Resumed ─┬► positions, control ──► source
//!                                                        ├► tickets (c, L] ──────► source repeats them
//!    L: last committed epoch                             ├► checkpoint at c ─────► operators load their state
//!    c: epoch of the last named checkpoint, or -1        └► Resume ──────────────► committer
//! ```
//!
//! # Steps, each idempotent: after a crash in their midst the next start does them again
//!
//! 0. **read** and check the log; refuse when it is another job's, or when epochs are left to repeat and the code or
//!    configuration has changed. With Kafka the outlet has connected before, so that nobody else can commit behind what
//!    is read ([`crate::kafka`]). **claim** the next generation.
//! 1. **publish** what committed records name and what is not published yet, from its generation's staging.
//! 2. **discard** what else lies in the staging of earlier generations: replay makes it again. With a store, also what
//!    earlier runs have left of their work in the data directory.
//! 3. **live**: local topics are cut behind the last commit.
//! 4. **sweep** checkpoint files that the named checkpoint does not need.
//! 5. **begin** this generation's bindings (with all tickets that the log still has) and manifest (with all files).
//!
//! Nothing is deleted or moved that belongs to a later generation: this instance may have been stopped here, overtaken,
//! and continued.

mod past;

pub use past::Identity;

use crate::checkpoint::{self, CheckpointEntry, CheckpointError};
use crate::commit::Resume;
use crate::commit::state::{Loaded, State};
use crate::failpoint;
use crate::files::FileError;
use crate::history::{HistoryError, Published, discard_staging, publish};
use crate::manifest::{Manifest, ManifestWriter, Publication, published};
use crate::message::{Binding, Ticket};
use crate::outlet::{Outlet, OutletError};
use crate::progress::data::DataDir;
use crate::progress::{Claim, FORMAT, FileEntry, overtaken};
use crate::store::{Storage, clear_local};
use drivetrain_schemas::control::ControlChange;
use drivetrain_schemas::reading::{Origin, Reject};
use past::Past;
use std::sync::Arc;
use thiserror::Error;

/// How a job begins.
#[derive(Debug)]
pub enum Start {
    /// Nothing was committed before: epoch 0 is the first.
    New { generation: u64 },
    /// It goes on.
    Resumed(Box<Resumed>),
    /// The input of this job had ended by itself; everything is committed and published.
    Finished {
        /// The job that ended here.
        job: String,
        committed: i64,
    },
}

/// Where a job goes on.
#[derive(Debug)]
pub struct Resumed {
    pub generation: u64,
    /// The last committed epoch, L.
    pub committed: i64,
    /// The last named checkpoint, at epoch c: operators load their state of it ([`checkpoint::load`]). `None` (c = -1):
    /// the job begins at its beginning, and repeats everything.
    pub checkpoint: Option<CheckpointEntry>,
    /// The epochs (c, L], ascending, none missing: to be repeated.
    pub tickets: Vec<Ticket>,
    /// c + 1.
    pub next_epoch: i64,
    /// Where each origin was after epoch c; none without a checkpoint (the ticket of epoch 0 has the beginnings).
    pub positions: Vec<Binding>,
    /// The control documents that were known after epoch c, each as a change.
    pub control: Vec<ControlChange>,
    /// The control documents up to epoch c that could not be used.
    pub rejects: Vec<Reject>,
    /// The idle set after epoch c.
    pub idle: Vec<Arc<Origin>>,
    /// Recorded wall time of the last committed epoch, µs: the next one's is not before it. `None` before the first.
    pub wall: Option<i64>,
    /// For [`crate::commit::CommitterConfig`].
    pub committer: Resume,
}

#[derive(Debug, Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Outlet(#[from] OutletError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}", crate::progress::overtaken_text(.job))]
    Overtaken { job: String },
    /// The entries do not make up a log.
    #[error(
        "the progress log of job {job:?}: {problem}. It is damaged; restore it from a backup, or start over with --fresh"
    )]
    Damaged { job: String, problem: String },
    #[error(
        "the progress log was written by drivetrain {version} in format {found}; this version reads format {FORMAT}. Run \
         drivetrain {version}, or start over with --fresh"
    )]
    Format { found: u32, version: String },
    #[error(
        "there is progress of an earlier run of job {earlier:?}, and this is job {job:?}; use another data directory, or \
         --fresh to start over"
    )]
    OtherJob { job: String, earlier: String },
    /// After a crash the rest can be repeated only by what began it.
    #[error(
        "{epochs} epochs of an earlier run are left to be repeated, and the {what} has changed since (from {before} to \
         {now}). Start the earlier {what} once more and stop it cleanly (SIGTERM); then this one can start. Or start over \
         with --fresh"
    )]
    Changed { what: &'static str, before: String, now: String, epochs: i64 },
    /// A checkpoint holds what operators have made of their part of the configuration.
    #[error(
        "`{section}` of the configuration has changed, and what the job keeps (at its checkpoint of epoch {epoch}) was made \
         with the earlier one. Start it with the earlier `{section}`, or start over with --fresh{}",
        hint(section)
    )]
    Section { section: String, epoch: i64 },
    #[error(
        "{data} has published history files, and the progress log knows of none: they are of another run. Use another data \
         directory, or --fresh to start over"
    )]
    NoProgress { data: String },
    #[error(
        "job {job:?} has written history files and checkpoints, and in {data} is no manifest of them: they are elsewhere. \
         Name their place (`storage.url`, or --data), or copy all of it here; or start over with --fresh"
    )]
    NoHistory { job: String, data: String },
}

/// What else a user can do who wants to change a section.
fn hint(section: &str) -> &'static str {
    match section {
        "policy" => {
            ". Or leave it as it was and publish the new policy as a document (`reference.policies`): it governs from then \
             on, and what it changes is written"
        }
        _ => "",
    }
}

impl RecoveryError {
    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            RecoveryError::Outlet(e) => e.is_retryable(),
            RecoveryError::Checkpoint(e) => e.is_retryable(),
            RecoveryError::File(e) | RecoveryError::History(HistoryError::File(e)) => e.is_retryable(),
            _ => false,
        }
    }

    /// Whether it is for the user to mend at once, by another command (exit code 2).
    pub fn is_usage(&self) -> bool {
        use RecoveryError as E;
        matches!(
            self,
            E::Format { .. }
                | E::OtherJob { .. }
                | E::Changed { .. }
                | E::Section { .. }
                | E::NoProgress { .. }
                | E::NoHistory { .. }
        )
    }
}

/// Claims the next generation, finishes what an earlier one left, and loads what it needs to go on. The outlet is ready
/// for its first commit then.
///
/// # Errors
/// See [`RecoveryError`]. Nothing has been changed when it refuses.
pub fn start(data: &DataDir, outlet: &mut dyn Outlet, identity: &Identity) -> Result<Start, RecoveryError> {
    let (past, manifest) = read(data, outlet, identity)?;
    let generation = past.generation;
    claim(outlet, identity, generation)?;
    match finish(data.storage(), outlet, past, &manifest) {
        // A successor clears away what it does not need, so that files are gone: that is not the cause.
        Err(error) if overtaken(outlet, generation) => {
            tracing::debug!(%error, "while another instance took over");
            Err(RecoveryError::Overtaken { job: identity.job.clone() })
        }
        done => done,
    }
}

/// Steps 1 to 5, and loading.
fn finish(data: &Storage, outlet: &mut dyn Outlet, past: Past, manifest: &Manifest) -> Result<Start, RecoveryError> {
    let generation = past.generation;
    let files = publish_named(data, &past, manifest)?;
    discard_staging(data, generation)?;
    if data.remote().is_some() {
        clear_local(data.local(), generation)?;
    }
    failpoint::hit("recovery.staging")?;
    outlet.resume(past.committed())?;
    failpoint::hit("recovery.live")?;
    checkpoint::sweep(data, generation, past.checkpoint.as_ref())?;
    failpoint::hit("recovery.sweep")?;
    begin(data, &past, &files)?;
    failpoint::hit("recovery.done")?;
    let Past { last: Some(_), .. } = &past else { return Ok(Start::New { generation }) };
    resumed(data, past, &files)
}

/// Reads the log and the manifest, and checks that this run may go on with them.
fn read(data: &DataDir, outlet: &dyn Outlet, identity: &Identity) -> Result<(Past, Manifest), RecoveryError> {
    let entries = || outlet.read_all().map_err(OutletError::from);
    let past = match Past::of(entries()?, &identity.job) {
        // The one that was overtaken may have trimmed the topic under the reader's eyes.
        Err(RecoveryError::Damaged { .. }) => Past::of(entries()?, &identity.job)?,
        past => past?,
    };
    past.check(identity)?;
    let manifest = published(data.storage())?;
    let place = || data.storage().place("").display().to_string();
    if (past.last.is_none() && !manifest.files.is_empty()) || manifest.generation >= past.generation {
        return Err(RecoveryError::NoProgress { data: place() });
    }
    if manifest.generation == 0 && past.needs_history() {
        return Err(RecoveryError::NoHistory { job: identity.job.clone(), data: place() });
    }
    Ok((past, manifest))
}

/// Step 0: from here on no earlier generation can commit.
fn claim(outlet: &mut dyn Outlet, identity: &Identity, generation: u64) -> Result<(), RecoveryError> {
    failpoint::hit("claim.before")?;
    let Identity { job, config_hash, version, .. } = identity.clone();
    outlet.claim(&Claim { generation, job, config_hash, version }).map_err(OutletError::from)?;
    Ok(failpoint::hit("claim.after")?)
}

/// Step 1: files of commits that the manifest does not have yet. Returns all published files.
fn publish_named(data: &Storage, past: &Past, manifest: &Manifest) -> Result<Vec<FileEntry>, RecoveryError> {
    let mut files = manifest.files.clone();
    for (generation, named) in past.published_after(manifest.commit) {
        publish(data, generation, named)?;
        files.extend_from_slice(named);
    }
    failpoint::hit("recovery.publish")?;
    Ok(files)
}

/// Step 5.
fn begin(data: &Storage, past: &Past, files: &[FileEntry]) -> Result<(), RecoveryError> {
    let last = past.last.as_ref();
    let whole = Publication {
        format: FORMAT,
        generation: past.generation,
        commit: last.map_or(0, |r| r.commit),
        committed_epoch: past.committed(),
        history_epoch: last.map_or(-1, |r| r.history_epoch),
        files: files.to_vec(),
        end: last.is_some_and(|r| r.end),
    };
    Ok(ManifestWriter::begin(data, past.generation, &whole, &past.tickets)?)
}

/// What there is to go on with.
fn resumed(data: &Storage, past: Past, files: &[FileEntry]) -> Result<Start, RecoveryError> {
    let (committed, after) = (past.committed(), past.after());
    let Past { generation, last, checkpoint, mut tickets, job, .. } = past;
    let record = last.unwrap_or_default();
    if record.end {
        return Ok(Start::Finished { job: record.job, committed });
    }
    let Loaded { state, positions, control, rejects, idle, wall } = match &checkpoint {
        Some(entry) => State::load(data, entry)?,
        None => Loaded::default(),
    };
    let published = Published::of(files).map_err(|file| RecoveryError::Damaged {
        job,
        problem: format!("it names {}, which is no history file of {}", file.path, file.table.name()),
    })?;
    tickets.retain(|t| t.epoch > after);
    tracing::info!(committed, checkpoint = after, epochs = tickets.len(), generation, "going on after an earlier run");
    Ok(Start::Resumed(Box::new(Resumed {
        generation,
        committed,
        next_epoch: after + 1,
        positions,
        control,
        rejects,
        idle,
        wall: tickets.last().map(|t| t.wall).or(wall),
        tickets,
        committer: Resume { checkpoint: checkpoint.clone(), state, record, published },
        checkpoint,
    })))
}

#[cfg(test)]
mod tests;
