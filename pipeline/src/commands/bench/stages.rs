//! The parts of the work one after the other, from memory, each over all readings.

use super::rows;
use super::usage::Watch;
use super::{CONFIG_NAME, Measured, Part};
use crate::cli::Failure;
use crate::config::{Config, Resolved};
use drivetrain_operators::sequence::{Incoming, Outcome, VehicleState};
use drivetrain_schemas::arrow::{self, ReadingPart};
use drivetrain_schemas::decode::{Body, Record};
use drivetrain_schemas::reading::{Accept, Head, IntakeCounts, Interned, Origin, ReadingBatch, Reject, TripPayload};
use drivetrain_schemas::table::{Table, TableId};
use drivetrain_sinks::history::{EpochRows, HistoryWriter, Published};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

/// Readings at most: they are all in memory.
const MOST: usize = 500_000;
/// The slow way gets this share of them.
const SLOW: usize = 5;

/// Measures all stages over the records of `input`, a file of lines.
pub(super) fn measure(config: &Config, scratch: &Path, input: &Path) -> Result<Vec<Measured>, Failure> {
    let text = std::fs::read(input).map_err(|e| Failure::job(format!("{}: {e}", input.display())))?;
    let records: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).take(MOST).collect();
    let resolved = Resolved::new(config, Path::new(CONFIG_NAME), None).map_err(Failure::job)?;
    let mut found = vec![parse(&records)?];
    let (measured, batches) = decode(config, &resolved, &records)?;
    found.push(measured);
    let mut epochs = epochs(batches, config.epoch.max_records);
    found.push(kernels(&resolved, &mut epochs)?);
    let epochs: Vec<Vec<Arc<ReadingBatch>>> =
        epochs.into_iter().map(|epoch| epoch.batches.into_iter().map(Arc::new).collect()).collect();
    found.extend(columns(&resolved, &epochs)?);
    found.push(history(config, &resolved, scratch, &epochs)?);
    Ok(found)
}

/// Runs `work` and says how long it took for so many readings.
fn timed<T>(part: Part, readings: usize, work: impl FnOnce() -> T) -> (Measured, T) {
    let watch = Watch::start();
    let result = work();
    let (wall_s, cpu_s) = watch.read();
    (Measured { part, workers: 1, readings: readings as u64, wall_s, cpu_s, peak_bytes: None }, result)
}

fn parse(records: &[&[u8]]) -> Result<Measured, Failure> {
    let (measured, result) = timed(Part::Parse, records.len(), || {
        records.iter().try_for_each(|record| {
            let value: serde_json::Value = serde_json::from_slice(record)?;
            black_box(value);
            Ok::<_, serde_json::Error>(())
        })
    });
    result.map_err(Failure::job)?;
    Ok(measured)
}

/// Gathers readings as the source operator does for one worker.
struct Gather {
    batch: ReadingBatch,
    serial: u64,
    rejects: usize,
}

impl Accept for Gather {
    fn reading(&mut self, head: Head, interned: Interned<'_>, values: &[i64], invalid: &[u16]) {
        self.batch.push_interned(head, interned, self.serial, values);
        self.batch.mark_invalid(invalid);
    }

    fn trip(&mut self, _trip: TripPayload) {
        self.rejects += 1;
    }

    fn reject(&mut self, _reject: Reject) {
        self.rejects += 1;
    }
}

fn decode(config: &Config, resolved: &Resolved, records: &[&[u8]]) -> Result<(Measured, Vec<ReadingBatch>), Failure> {
    let mut decoders = resolved.decoders();
    let Some(decoder) = decoders.first_mut() else { return Err(Failure::job("the configuration has no source")) };
    let name = resolved.sources.first().map_or_else(|| "".into(), |source| source.name.clone());
    let origin = Arc::new(Origin { source: name, name: "bench".into(), partition: 0 });
    let (width, mut counts) = (resolved.catalogue.width(), IntakeCounts::default());
    let (mut position, mut serial, mut rejects) = (0, 0, 0);
    let (measured, batches) = timed(Part::Decode, records.len(), || {
        let chunk = |chunk: &[&[u8]]| {
            let batch = ReadingBatch::with_capacity(origin.clone(), width, chunk.len());
            serial += 1;
            let mut gather = Gather { batch, serial, rejects: 0 };
            for record in chunk {
                position += 1;
                let (origin, body) = (&origin, Body::Json(record));
                let record = Record { origin, position, timestamp: None, key: None, headers: &[], body };
                decoder.decode_ahead(&record, &mut counts, &mut gather);
            }
            decoder.flush(&mut gather);
            rejects += gather.rejects;
            gather.batch
        };
        records.chunks(config.epoch.chunk_records.max(1)).map(chunk).collect::<Vec<_>>()
    });
    let readings: usize = batches.iter().map(ReadingBatch::len).sum();
    if readings != records.len() || rejects > 0 {
        return Err(Failure::job(format!("{readings} of {} simulated records were decoded", records.len())));
    }
    Ok((measured, batches))
}

/// The readings of one epoch, and those of each vehicle.
struct Epoch {
    batches: Vec<ReadingBatch>,
    vehicles: Vec<(Arc<str>, Vec<Incoming>)>,
}

/// Epochs of a backlog: as many readings as one may have.
fn epochs(batches: Vec<ReadingBatch>, most: usize) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = Vec::new();
    let mut readings = usize::MAX;
    for batch in batches {
        if readings.saturating_add(batch.len()) > most {
            epochs.push(Epoch { batches: Vec::new(), vehicles: Vec::new() });
            readings = 0;
        }
        readings += batch.len();
        if let Some(epoch) = epochs.last_mut() {
            epoch.batches.push(batch);
        }
    }
    for Epoch { batches, vehicles } in &mut epochs {
        let mut found: BTreeMap<Arc<str>, Vec<Incoming>> = BTreeMap::new();
        for (place, batch) in batches.iter().enumerate() {
            for row in 0..batch.len() {
                let rows = found.entry(batch.meta(row).vehicle.clone()).or_default();
                rows.push(Incoming { batch: place as u32, row: row as u32 });
            }
        }
        vehicles.extend(found);
    }
    epochs
}

/// Leaves the epochs without their vehicles' rows.
fn kernels(resolved: &Resolved, epochs: &mut [Epoch]) -> Result<Measured, Failure> {
    let cfg = &resolved.kernels;
    let readings = epochs.iter().flat_map(|epoch| &epoch.batches).map(ReadingBatch::len).sum();
    let mut states: BTreeMap<Arc<str>, VehicleState> = BTreeMap::new();
    let (measured, used) = timed(Part::Kernels, readings, || {
        let mut used = 0;
        for epoch in epochs {
            let mut outcome = Outcome::default();
            for (vehicle, mut rows) in epoch.vehicles.drain(..) {
                let state = states.entry(vehicle).or_insert_with_key(|id| VehicleState::new(cfg, id.clone()));
                state.apply(cfg, &epoch.batches, &mut rows, &mut outcome);
            }
            used += outcome.counts.iter().map(|(_, counts)| counts.used).sum::<i64>();
            black_box(outcome);
        }
        used
    });
    if used != readings as i64 {
        return Err(Failure::job(format!("the kernels used {used} of {readings} simulated readings")));
    }
    Ok(measured)
}

/// Readings as Arrow columns: as the history does it, and row by row.
fn columns(resolved: &Resolved, epochs: &[Vec<Arc<ReadingBatch>>]) -> Result<[Measured; 2], Failure> {
    let catalogue = &resolved.catalogue;
    let table = Table::new(TableId::Readings, catalogue);
    let part =
        |epoch: usize, batch: &Arc<ReadingBatch>| ReadingPart { epoch: epoch as i64, diff: 1, batch: batch.clone() };
    let parts = |(epoch, batches): (usize, &Vec<Arc<ReadingBatch>>)| {
        batches.iter().map(|batch| part(epoch, batch)).collect::<Vec<_>>()
    };
    let parts: Vec<Vec<ReadingPart>> = epochs.iter().enumerate().map(parts).collect();
    let count = |parts: &[ReadingPart]| parts.iter().map(|part| part.batch.len()).sum::<usize>();
    let readings = parts.iter().map(|parts| count(parts)).sum();
    let (fast, result) = timed(Part::Columns, readings, || {
        parts.iter().try_for_each(|parts| arrow::readings(catalogue, &table, parts).map(|batch| drop(black_box(batch))))
    });
    result.map_err(Failure::job)?;
    let Some(first) = parts.first() else { return Err(Failure::job("there are no readings")) };
    let some = &first[..(first.len() / SLOW).max(1)];
    let expected = arrow::readings(catalogue, &table, some).map_err(Failure::job)?;
    let (slow, result) = timed(Part::Rows, count(some), || rows::readings(catalogue, &table, some));
    if result.map_err(Failure::job)? != expected {
        return Err(Failure::job("readings gathered by columns are not those gathered row by row"));
    }
    Ok([fast, slow])
}

/// The history's thread alone.
fn history(
    config: &Config,
    resolved: &Resolved,
    scratch: &Path,
    epochs: &[Vec<Arc<ReadingBatch>>],
) -> Result<Measured, Failure> {
    let readings = epochs.iter().flatten().map(|batch| batch.len()).sum();
    let (catalogue, history) = (resolved.catalogue.clone(), config.history.clone());
    let (measured, result) = timed(Part::History, readings, || {
        let mut writer = HistoryWriter::start(scratch, 1, catalogue, history, Published::default())?;
        for (epoch, batches) in epochs.iter().enumerate() {
            let readings = batches.iter().map(|batch| (batch.clone(), 1)).collect();
            writer.add(EpochRows { epoch: epoch as i64, rows: Vec::new(), readings })?;
        }
        let mut closed = writer.closed()?.unwrap_or_default();
        closed.files.extend(writer.drain()?.files);
        Ok::<_, drivetrain_sinks::history::HistoryError>(closed)
    });
    let rows: u64 = result.map_err(Failure::job)?.files.iter().map(|file| file.rows).sum();
    if rows != readings as u64 {
        return Err(Failure::job(format!("the history has {rows} of {readings} simulated readings")));
    }
    Ok(measured)
}
