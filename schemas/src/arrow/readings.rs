//! The fast path of `readings`: batches as the dataflow hands them on become one sorted record batch.
//!
//! No string is hashed or compared for a single reading: the decoder interns metas, so a meta is known by its address,
//! and only the distinct metas' vehicles are ranked. A reading is then sorted by one 128-bit number,
//! `rank of vehicle | at | epoch`, and a float is one division of two exact doubles.

use super::{ArrowError, schema};
use crate::catalogue::{Catalogue, SignalType};
use crate::fixed;
use crate::reading::{Meta, NULL, ReadingBatch};
use crate::table::{Table, TableId};
use ::arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringBuilder, TimestampMicrosecondArray};
use ::arrow::buffer::{NullBuffer, ScalarBuffer};
use ::arrow::record_batch::RecordBatch;
use hashbrown::HashMap;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A batch of readings that became (`diff` +1) or ceased to be (-1) true at an epoch.
#[derive(Clone, Debug)]
pub struct ReadingPart {
    pub epoch: i64,
    pub diff: i64,
    pub batch: Arc<ReadingBatch>,
}

/// One reading in the order of the output.
#[derive(Clone, Copy)]
struct Entry {
    /// rank of the vehicle (32 bits) | event time (64 bits, sign flipped) | epoch behind the first one (32 bits)
    key: u128,
    part: u32,
    row: u32,
}

/// The parts' readings as one batch of the history schema of `table` (which must be `readings` of this catalogue),
/// sorted by (vehicle_id, at, epoch), ties by content. A reading that became and ceased to be true at the same epoch is
/// left out. All parts of an epoch should be given together: what stands in another batch cannot cancel.
///
/// # Errors
/// When a part's width is not the catalogue's.
pub fn readings(catalogue: &Catalogue, table: &Table, parts: &[ReadingPart]) -> Result<RecordBatch, ArrowError> {
    debug_assert_eq!(table.id, TableId::Readings);
    let width = catalogue.width();
    if let Some(part) = parts.iter().find(|p| p.batch.width != width) {
        return Err(ArrowError::Signals { found: part.batch.width, expected: width });
    }
    let mut entries = sorted(parts);
    if parts.iter().any(|p| p.diff < 0) {
        cancel(parts, &mut entries);
    }
    let Gathered { metas, at, epoch, diff, mut numbers } = gather(catalogue, parts, &entries);
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(table.columns.len() + 2);
    arrays.push(strings(&metas, |m| Some(&m.vehicle)));
    arrays.push(Arc::new(TimestampMicrosecondArray::new(at.into(), None).with_timezone(super::UTC)));
    arrays.push(strings(&metas, |m| m.driver.as_ref()));
    arrays.push(strings(&metas, |m| m.trip.as_ref()));
    arrays.push(strings(&metas, |m| m.fleet.as_ref()));
    for (index, (signal, values)) in catalogue.signals.iter().zip(&mut numbers).enumerate() {
        let values = std::mem::take(values);
        arrays.push(match signal.kind {
            SignalType::Number => floats(&values, signal.decimals),
            SignalType::Bool => {
                Arc::new(values.iter().map(|v| (*v != NULL).then_some(*v != 0)).collect::<BooleanArray>()) as ArrayRef
            }
            SignalType::Text => {
                strings(&metas, |m| m.texts.binary_search_by_key(&(index as u16), |t| t.0).ok().map(|i| &m.texts[i].1))
            }
        });
    }
    arrays.push(strings(&metas, |m| m.quality.as_ref()));
    arrays.push(strings(&metas, |m| m.tags.as_ref()));
    arrays.push(Arc::new(Int64Array::from(epoch)));
    arrays.push(Arc::new(Int64Array::from(diff)));
    RecordBatch::try_new(schema(table, true), arrays).map_err(|source| ArrowError::Batch { table: table.name, source })
}

/// The readings' parts by column, in the order of the output.
struct Gathered<'a> {
    metas: Vec<&'a Meta>,
    at: Vec<i64>,
    epoch: Vec<i64>,
    diff: Vec<i64>,
    /// By signal; empty for texts.
    numbers: Vec<Vec<i64>>,
}

/// Each reading stands somewhere else in memory: it is looked up once, for all columns.
fn gather<'a>(catalogue: &Catalogue, parts: &'a [ReadingPart], entries: &[Entry]) -> Gathered<'a> {
    let n = entries.len();
    let of_kind = |kind| if kind == SignalType::Text { Vec::new() } else { vec![NULL; n] };
    let mut numbers: Vec<Vec<i64>> = catalogue.signals.iter().map(|s| of_kind(s.kind)).collect();
    let mut places: Vec<(usize, &mut [i64])> =
        numbers.iter_mut().map(Vec::as_mut_slice).enumerate().filter(|(_, column)| !column.is_empty()).collect();
    let (mut at, mut epoch, mut diff) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let mut metas = Vec::with_capacity(n);
    for (i, entry) in entries.iter().enumerate() {
        let part = &parts[entry.part as usize];
        let row = entry.row as usize;
        at.push(part.batch.heads[row].at);
        epoch.push(part.epoch);
        diff.push(part.diff);
        metas.push(part.batch.meta(row).as_ref());
        let values = part.batch.row(row);
        for (signal, column) in &mut places {
            column[i] = values[*signal];
        }
    }
    Gathered { metas, at, epoch, diff, numbers }
}

/// All readings of the parts in their order; see [`Entry`].
fn sorted(parts: &[ReadingPart]) -> Vec<Entry> {
    let ranks = ranks(parts);
    let first = parts.iter().map(|p| p.epoch).min().unwrap_or(0);
    let mut entries = Vec::with_capacity(parts.iter().map(|p| p.batch.len()).sum());
    for (p, part) in parts.iter().enumerate() {
        // Epochs of one buffer are near each other; beyond 2^32 of them the order among equal times would be by content.
        let epoch = u128::from(u32::try_from(part.epoch - first).unwrap_or(u32::MAX));
        let heads = &part.batch.heads;
        let base = &ranks[p];
        for (row, head) in heads.iter().enumerate() {
            let at = (head.at as u64) ^ (1 << 63);
            let rank = base[head.meta as usize];
            let key = (u128::from(rank) << 96) | (u128::from(at) << 32) | epoch;
            entries.push(Entry { key, part: p as u32, row: row as u32 });
        }
    }
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key).then_with(|| content(parts, a, b)));
    entries
}

/// Order of two readings of one vehicle, time and epoch: by values, circumstances, and the retraction first.
fn content(parts: &[ReadingPart], a: &Entry, b: &Entry) -> Ordering {
    let (x, y) = (&parts[a.part as usize], &parts[b.part as usize]);
    same(parts, a, b).then_with(|| x.diff.cmp(&y.diff))
}

/// Order by values and circumstances alone.
fn same(parts: &[ReadingPart], a: &Entry, b: &Entry) -> Ordering {
    let (x, y) = (&parts[a.part as usize].batch, &parts[b.part as usize].batch);
    let (i, j) = (a.row as usize, b.row as usize);
    x.row(i).cmp(y.row(j)).then_with(|| x.meta(i).cmp(y.meta(j)))
}

/// For each part and each of its metas the rank of the meta's vehicle among all vehicles, by byte order.
fn ranks(parts: &[ReadingPart]) -> Vec<Vec<u32>> {
    let mut seen: HashMap<*const Meta, u32, foldhash::fast::FixedState> = HashMap::default();
    let mut distinct: Vec<&Meta> = Vec::new();
    let mut local: Vec<Vec<u32>> = Vec::with_capacity(parts.len());
    for part in parts {
        let ids = part.batch.metas.iter().map(|meta| {
            *seen.entry(Arc::as_ptr(meta)).or_insert_with(|| {
                distinct.push(meta);
                (distinct.len() - 1) as u32
            })
        });
        local.push(ids.collect());
    }
    let mut vehicles: BTreeMap<&str, u32> = distinct.iter().map(|m| (m.vehicle.as_ref(), 0)).collect();
    for (rank, slot) in vehicles.values_mut().enumerate() {
        *slot = rank as u32;
    }
    let by_meta: Vec<u32> = distinct.iter().map(|m| vehicles.get(m.vehicle.as_ref()).copied().unwrap_or(0)).collect();
    for ids in &mut local {
        for id in ids {
            *id = by_meta[*id as usize];
        }
    }
    local
}

/// Takes out what became and ceased to be true at one epoch. Equal readings of an epoch stand next to each other,
/// retractions first.
fn cancel(parts: &[ReadingPart], entries: &mut Vec<Entry>) {
    let mut out = 0;
    let mut start = 0;
    while start < entries.len() {
        let head = entries[start];
        let mut end = start + 1;
        while end < entries.len() && entries[end].key == head.key && same(parts, &entries[end], &head).is_eq() {
            end += 1;
        }
        let net: i64 = entries[start..end].iter().map(|e| parts[e.part as usize].diff).sum();
        let keep = entries[start..end].iter().copied().filter(|e| parts[e.part as usize].diff.signum() == net.signum());
        let keep: Vec<Entry> = keep.take(net.unsigned_abs() as usize).collect();
        for entry in keep {
            entries[out] = entry;
            out += 1;
        }
        start = end;
    }
    entries.truncate(out);
}

fn strings<'a>(metas: &[&'a Meta], get: impl Fn(&'a Meta) -> Option<&'a Arc<str>>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(metas.len(), metas.len() * 8);
    for meta in metas {
        match get(meta) {
            Some(text) => builder.append_value(text),
            None => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

/// Fixed-point numbers as the nearest doubles; [`NULL`] is null.
fn floats(values: &[i64], decimals: u32) -> ArrayRef {
    const EXACT: u64 = 1 << 53;
    let scale = fixed::pow10(decimals) as f64;
    let float = |value: &i64| {
        if value.unsigned_abs() <= EXACT {
            *value as f64 / scale
        } else if *value == NULL {
            0.0
        } else {
            fixed::to_f64(i128::from(*value), decimals)
        }
    };
    let out: Vec<f64> = values.iter().map(float).collect();
    let nulls = values.contains(&NULL).then(|| NullBuffer::from_iter(values.iter().map(|v| *v != NULL)));
    Arc::new(Float64Array::new(ScalarBuffer::from(out), nulls))
}

#[cfg(test)]
mod tests;
