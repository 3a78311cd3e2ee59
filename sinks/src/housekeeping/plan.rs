//! What is to be done: which days are too old, which files are too small, where changes can cancel.

use super::log::{Log, ages};
use super::merge::{fields, retracts_until};
use super::{HousekeepingError, Options};
use crate::history::DateKey;
use crate::manifest::{Manifest, epoch_before, published};
use crate::progress::FileEntry;
use arrow::datatypes::Field;
use drivetrain_schemas::table::TableId;
use std::collections::BTreeMap;
use std::path::Path;

/// What [`super::Housekeeper::run`] would do.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) expiries: Vec<Expiry>,
    pub(super) mergings: Vec<Merging>,
    /// Changes up to this epoch cancel.
    pub limit: Option<i64>,
}

/// A table's days that are too old.
#[derive(Debug)]
pub(super) struct Expiry {
    pub(super) table: TableId,
    /// The first day that is kept.
    pub(super) before: DateKey,
    pub(super) files: Vec<FileEntry>,
}

/// Files of one partition and one schema that become fewer.
#[derive(Debug)]
pub(super) struct Merging {
    pub(super) table: TableId,
    pub(super) date: DateKey,
    pub(super) files: Vec<FileEntry>,
    /// Cancel changes up to this epoch.
    pub(super) limit: Option<i64>,
}

impl std::fmt::Display for Plan {
    /// A line for each step.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sums = |files: &[FileEntry]| {
            let (rows, bytes) = files.iter().fold((0, 0), |(r, b), f| (r + f.rows, b + f.bytes));
            format!("{} files, {rows} rows, {bytes} bytes", files.len())
        };
        for Expiry { table, before, files } in &self.expiries {
            writeln!(f, "{}: retention takes the days before {}: {}", table.name(), before.text(), sums(files))?;
        }
        for Merging { table, date, files, limit } in &self.mergings {
            let day = if *date == DateKey::NONE { String::new() } else { format!(" of {}", date.text()) };
            let how = limit.map_or(String::new(), |l| format!(", and changes up to epoch {l} are cancelled"));
            writeln!(f, "{}{day}: {} become fewer{how}", table.name(), sums(files))?;
        }
        if self.expiries.is_empty() && self.mergings.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        Ok(())
    }
}

type Partitions = BTreeMap<(TableId, DateKey), Vec<FileEntry>>;

/// What there is to do. Changes nothing.
///
/// # Errors
/// When the manifest, the log of changes or a history file cannot be read.
pub fn plan(data: &Path, options: &Options, now: i64) -> Result<Plan, HousekeepingError> {
    let log = Log::read(data)?;
    let Manifest { files, history_epoch, .. } = published(data)?;
    let mut partitions = Partitions::new();
    for file in files {
        // A path that is not one of ours is not touched.
        if let Some(partition) = file.partition() {
            partitions.entry(partition).or_default().push(file);
        }
    }
    let limit = match options.consolidate {
        true => epoch_before(data, options.history.as_of.0)?.map(|epoch| epoch.min(history_epoch)),
        false => None,
    };
    let mut plan = Plan { limit, ..Plan::default() };
    for table in TableId::ALL {
        plan.expiries.extend(expiry(table, &mut partitions, &log, options, now));
    }
    for ((table, date), files) in partitions {
        let cancels = |file: &FileEntry, limit| {
            Ok(file.retractions > 0 && file.min_epoch <= limit && retracts_until(data, file, limit)?)
        };
        let limit = match limit {
            Some(epoch) if any(&files, |f| cancels(f, epoch))? => limit,
            _ => None,
        };
        let small = options.history.roll_bytes.0.div_ceil(2);
        let chosen: Vec<FileEntry> =
            files.into_iter().filter(|f| limit.is_some() || f.bytes < small || f.rows == 0).collect();
        if chosen.len() < 2 && limit.is_none() {
            continue;
        }
        for files in by_schema(data, chosen)? {
            if files.len() > 1 || limit.is_some() {
                plan.mergings.push(Merging { table, date, files, limit });
            }
        }
    }
    Ok(plan)
}

/// Takes a table's days that are too old out of the partitions. They are counted from the newest day of the table, so that
/// what is replayed is not gone the moment it is written. Days after today (of vehicles whose clock is wrong) do not count
/// as the newest: they would make everything old.
fn expiry(table: TableId, partitions: &mut Partitions, log: &Log, options: &Options, now: i64) -> Option<Expiry> {
    let dates = || partitions.keys().filter(|(t, d)| *t == table && ages(*t, *d)).map(|(_, d)| *d);
    let today = DateKey::of(now);
    let newest = dates().filter(|d| *d <= today).max()?;
    let before = options.history.retention.of(table).first_kept(newest);
    // What was taken away stays away.
    let earlier = log.kept.expired.get(&table).and_then(|e| DateKey::parse(&e.before));
    let before = before.max(earlier)?;
    let old: Vec<DateKey> = dates().filter(|d| *d < before).collect();
    let files: Vec<FileEntry> = old.into_iter().filter_map(|d| partitions.remove(&(table, d))).flatten().collect();
    (!files.is_empty()).then_some(Expiry { table, before, files })
}

fn any(
    files: &[FileEntry],
    mut is: impl FnMut(&FileEntry) -> Result<bool, HousekeepingError>,
) -> Result<bool, HousekeepingError> {
    for file in files {
        if is(file)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files by their columns, which change with the configuration and the version. Their order stays.
fn by_schema(data: &Path, files: Vec<FileEntry>) -> Result<Vec<Vec<FileEntry>>, HousekeepingError> {
    let mut groups: Vec<(Vec<Field>, Vec<FileEntry>)> = Vec::new();
    for file in files {
        let fields = fields(data, &file)?;
        match groups.iter_mut().find(|(f, _)| *f == fields) {
            Some((_, group)) => group.push(file),
            None => groups.push((fields, vec![file])),
        }
    }
    Ok(groups.into_iter().map(|(_, files)| files).collect())
}
