//! Digests: one number a table that says which rows its log holds, so that a replay can be compared with the run that
//! it repeats.
//!
//! The digest of a table is Σ diff × XXH3-128(row, epoch) modulo 2^128, over all rows since the job began. It is a sum,
//! so neither the order of rows nor their division into commits and workers matters; it is cumulative, so comparing it
//! once checks the loaded state and everything repeated since.
//!
//! A live topic's digest is the sum over each epoch's changes (key, value or tombstone, epoch), before several epochs of
//! one commit are reduced to each key's last change, which depends on timing.

use drivetrain_schemas::reading::{Meta, ReadingBatch};
use drivetrain_schemas::row::Row;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Digests by name: a table's (`trips`) or a live topic's (`live/trip_scores`). As JSON: 32 hex digits each. What has
/// no rows has no digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests(BTreeMap<String, u128>);

impl Digests {
    fn add(&mut self, name: &str, sum: u128) {
        match self.0.get_mut(name) {
            Some(digest) => *digest = digest.wrapping_add(sum),
            None => _ = self.0.insert(name.to_string(), sum),
        }
    }

    /// The first name, in byte order, at which the two differ, with both digests as hex.
    pub fn difference(&self, other: &Digests) -> Option<(String, String, String)> {
        let names = self.0.keys().chain(other.0.keys());
        let of = |digests: &Digests, name: &String| digests.0.get(name).copied().unwrap_or(0);
        let name = names.filter(|name| of(self, name) != of(other, name)).min()?;
        Some((name.clone(), hex(of(self, name)), hex(of(other, name))))
    }
}

fn hex(digest: u128) -> String {
    format!("{digest:032x}")
}

impl Serialize for Digests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, digest)| (name, hex(*digest))))
    }
}

impl<'de> Deserialize<'de> for Digests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        let number = |(name, text): (String, String)| {
            let digest = u128::from_str_radix(&text, 16);
            digest.map(|d| (name, d)).map_err(|_| serde::de::Error::custom(format!("{text:?} is not a digest")))
        };
        texts.into_iter().map(number).collect::<Result<_, _>>().map(Digests)
    }
}

/// Slots of the cache of circumstances. 2 MiB, and the circumstances that are held by it.
const SLOTS: usize = 1 << 16;

/// Computes digests. Holds buffers and the hashes of circumstances.
#[derive(Debug, Default)]
pub(crate) struct Digester {
    buffer: Vec<u8>,
    /// By address, each in the one slot that its address gives. The `Arc` keeps the address from being used again.
    metas: Vec<Option<(Arc<Meta>, u128)>>,
}

impl Digester {
    /// Adds an epoch's rows of a table.
    pub(crate) fn rows(&mut self, digests: &mut Digests, table: &str, epoch: i64, rows: &[(Row, i64)]) {
        let mut sum = 0u128;
        for (row, diff) in rows {
            self.buffer.clear();
            self.buffer.extend_from_slice(row.bytes());
            self.buffer.extend_from_slice(&epoch.to_le_bytes());
            sum = sum.wrapping_add(times(*diff, xxh3_128(&self.buffer)));
        }
        if !rows.is_empty() {
            digests.add(table, sum);
        }
    }

    /// Adds a batch of readings that became or ceased to be true at an epoch.
    ///
    /// This is on the way of every reading: one hash of (circumstances' hash, time, epoch, values), and the hash of the
    /// circumstances is looked up by their address, since the decoder interns them.
    pub(crate) fn readings(&mut self, digests: &mut Digests, name: &str, epoch: i64, batch: &ReadingBatch, diff: i64) {
        const HEAD: usize = 16 + 8 + 8;
        if batch.is_empty() {
            return;
        }
        let metas: Vec<u128> = batch.metas.iter().map(|meta| self.meta(meta)).collect();
        self.buffer.clear();
        self.buffer.resize(HEAD + 8 * batch.width, 0);
        self.buffer[24..32].copy_from_slice(&epoch.to_le_bytes());
        let mut sum = 0u128;
        for (i, head) in batch.heads.iter().enumerate() {
            let (fixed, values) = self.buffer.split_at_mut(HEAD);
            fixed[..16].copy_from_slice(&metas[head.meta as usize].to_le_bytes());
            fixed[16..24].copy_from_slice(&head.at.to_le_bytes());
            for (bytes, value) in values.chunks_exact_mut(8).zip(batch.row(i)) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            sum = sum.wrapping_add(xxh3_128(&self.buffer));
        }
        digests.add(name, times(diff, sum));
    }

    /// Adds a change of a live key.
    pub(crate) fn change(&mut self, digests: &mut Digests, name: &str, epoch: i64, key: &str, value: Option<&str>) {
        self.buffer.clear();
        write_text(&mut self.buffer, b't', key.as_bytes());
        match value {
            Some(value) => write_text(&mut self.buffer, b'j', value.as_bytes()),
            None => self.buffer.push(b'n'),
        }
        self.buffer.extend_from_slice(&epoch.to_le_bytes());
        digests.add(name, xxh3_128(&self.buffer));
    }

    fn meta(&mut self, meta: &Arc<Meta>) -> u128 {
        if self.metas.is_empty() {
            self.metas.resize(SLOTS, None);
        }
        // Allocations are at least 16 bytes apart; the multiplication spreads what is regular in them.
        let address = (Arc::as_ptr(meta) as usize >> 4) as u64;
        let slot = (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.trailing_zeros())) as usize;
        if let Some((known, hash)) = &self.metas[slot]
            && Arc::ptr_eq(known, meta)
        {
            return *hash;
        }
        let hash = meta_hash(&mut self.buffer, meta);
        self.metas[slot] = Some((meta.clone(), hash));
        hash
    }
}

fn times(diff: i64, hash: u128) -> u128 {
    (i128::from(diff) as u128).wrapping_mul(hash)
}

fn meta_hash(buffer: &mut Vec<u8>, meta: &Meta) -> u128 {
    let Meta { vehicle, texts, driver, trip, fleet, quality, tags } = meta;
    buffer.clear();
    write_text(buffer, b't', vehicle.as_bytes());
    for text in [driver, trip, fleet, quality, tags] {
        match text {
            Some(text) => write_text(buffer, b't', text.as_bytes()),
            None => buffer.push(b'n'),
        }
    }
    for (signal, text) in texts {
        buffer.extend_from_slice(&signal.to_le_bytes());
        write_text(buffer, b't', text.as_bytes());
    }
    xxh3_128(buffer)
}

fn write_text(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivetrain_schemas::reading::{Head, NULL, Origin};
    use drivetrain_schemas::row::Cell;
    use proptest::prelude::*;

    fn row(n: u8) -> Row {
        Row::new(&[Cell::Int(n.into()), Cell::from("x")])
    }

    fn meta(vehicle: &str) -> Arc<Meta> {
        let vehicle = vehicle.into();
        Arc::new(Meta { vehicle, texts: vec![], driver: None, trip: None, fleet: None, quality: None, tags: None })
    }

    fn batch(readings: &[(&Arc<Meta>, i64, i64)]) -> ReadingBatch {
        let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
        let mut batch = ReadingBatch::new(origin, 2);
        for (meta, at, value) in readings {
            let head = Head { at: *at, position: 0, record_time: NULL, meta: 0, element: 0 };
            batch.push(head, meta, &[*value, NULL]);
        }
        batch
    }

    proptest! {
        /// The digest is that of the multiset of (row, epoch), however it is cut and ordered.
        #[test]
        fn it_is_a_sum(rows in proptest::collection::vec((0u8..5, -2i64..3, 0i64..3), 0..20), cut in 0usize..20) {
            let mut digester = Digester::default();
            let (mut one, mut two) = (Digests::default(), Digests::default());
            let mut sums = BTreeMap::<(u8, i64), i64>::new();
            for (n, diff, epoch) in &rows {
                digester.rows(&mut one, "t", *epoch, &[(row(*n), *diff)]);
                *sums.entry((*n, *epoch)).or_default() += diff;
            }
            for ((n, epoch), diff) in sums.iter().rev().cycle().skip(cut % sums.len().max(1)).take(sums.len()) {
                digester.rows(&mut two, "t", *epoch, &[(row(*n), *diff)]);
            }
            prop_assert_eq!(one.difference(&two), None);
            prop_assert_eq!(sums.values().all(|d| *d == 0), one.difference(&Digests::default()).is_none());
        }
    }

    #[test]
    fn every_part_of_a_row_counts() {
        let mut digester = Digester::default();
        let mut of = |rows: &[(Row, i64)], epoch| {
            let mut digests = Digests::default();
            digester.rows(&mut digests, "t", epoch, rows);
            digests
        };
        let one = |cells: &[Cell<'_>]| [(Row::new(cells), 1)];
        let base = of(&one(&[Cell::from("a"), Cell::from("bc")]), 1);
        for other in [
            of(&one(&[Cell::from("ab"), Cell::from("c")]), 1),
            of(&one(&[Cell::from("a"), Cell::Json("bc")]), 1),
            of(&one(&[Cell::from("a"), Cell::from("bc"), Cell::Null]), 1),
            of(&one(&[Cell::from("a"), Cell::from("bc")]), 2),
            of(&[(Row::new(&[Cell::from("a"), Cell::from("bc")]), 2)], 1),
        ] {
            assert_eq!(base.difference(&other).unwrap().0, "t");
        }
        assert_eq!(base.difference(&base), None);
    }

    #[test]
    fn readings_count_by_content_and_not_by_address() {
        let mut digester = Digester::default();
        let mut of = |batches: &[(ReadingBatch, i64, i64)]| {
            let mut digests = Digests::default();
            batches.iter().for_each(|(b, epoch, diff)| digester.readings(&mut digests, "readings", *epoch, b, *diff));
            digests
        };
        let (a, again, b) = (meta("a"), meta("a"), meta("b"));
        let base = of(&[(batch(&[(&a, 1, 5), (&b, 2, 6)]), 1, 1)]);
        assert_eq!(base, of(&[(batch(&[(&b, 2, 6)]), 1, 1), (batch(&[(&again, 1, 5)]), 1, 1)]));
        assert_eq!(base, of(&[(batch(&[(&a, 1, 5), (&b, 2, 6), (&b, 3, 3)]), 1, 1), (batch(&[(&b, 3, 3)]), 1, -1)]));
        for other in [(&b, 1, 5, 1), (&a, 2, 5, 1), (&a, 1, 6, 1), (&a, 1, 5, 2)] {
            let (meta, at, value, epoch) = other;
            let one = of(&[(batch(&[(&a, 1, 5)]), 1, 1)]);
            assert!(one.difference(&of(&[(batch(&[(meta, at, value)]), epoch, 1)])).is_some(), "{other:?}");
        }
        let metas: Vec<Arc<Meta>> = (0..200_000).map(|i| meta(&format!("v{i}"))).collect();
        let many: Vec<(&Arc<Meta>, i64, i64)> = metas.iter().map(|m| (m, 1, 1)).collect();
        let all = of(&[(batch(&many), 1, 1)]);
        let halves = of(&[(batch(&many[70_000..]), 1, 1), (batch(&many[..70_000]), 1, 1)]);
        assert_eq!(all, halves, "more circumstances than slots");
    }

    #[test]
    fn as_json_and_back() {
        let mut digests = Digests::default();
        Digester::default().change(&mut digests, "live/trip_scores", 7, "t1", None);
        let json = serde_json::to_string(&digests).unwrap();
        assert!(json.starts_with(r#"{"live/trip_scores":""#) && json.len() == 55, "{json}");
        assert_eq!(serde_json::from_str::<Digests>(&json).unwrap(), digests);
        assert!(serde_json::from_str::<Digests>(r#"{"a":"xyz"}"#).is_err());
    }

    /// `cargo test --release --lib -- --ignored --nocapture digests_are_cheap`
    #[test]
    #[ignore = "a measurement"]
    fn digests_are_cheap() {
        for vehicles in [1_000usize, 100_000] {
            let metas: Vec<Arc<Meta>> = (0..vehicles).map(|i| meta(&format!("vehicle-{i:06}"))).collect();
            let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
            let batches: Vec<ReadingBatch> = (0..1_000)
                .map(|b| {
                    let mut batch = ReadingBatch::new(origin.clone(), 10);
                    for i in 0..1_000usize {
                        let head = Head { at: (b * i) as i64, position: 0, record_time: NULL, meta: 0, element: 0 };
                        batch.push(head, &metas[(b * 1_000 + i) % vehicles], &[i as i64; 10]);
                    }
                    batch
                })
                .collect();
            let (mut digester, mut digests) = (Digester::default(), Digests::default());
            let began = std::time::Instant::now();
            batches.iter().for_each(|b| digester.readings(&mut digests, "readings", 1, b, 1));
            println!("{vehicles} vehicles: {:.1} ns a reading", began.elapsed().as_nanos() as f64 / 1e6);
        }
    }
}
