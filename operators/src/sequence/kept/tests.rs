//! What a checkpoint holds is the state, whichever of its records come from which checkpoint.

use super::super::{Incoming, Outcome};
use super::*;
use crate::config::KernelConfig;
use crate::testing::{Setup, reading};
use drivetrain_schemas::reading::{Head, NULL, ReadingBatch};
use drivetrain_schemas::records::Change;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Stand = BTreeMap<Vec<u8>, Vec<u8>>;

fn merge(stand: &mut Stand, records: &Records) {
    let mut records = records.clone();
    records.sort();
    for record in records.iter() {
        match record.change {
            Change::Put(value) => _ = stand.insert(record.key.to_vec(), value.to_vec()),
            Change::Gone => assert!(stand.remove(record.key).is_some(), "{:?} is not there", record.key),
            Change::Add(_) => unreachable!(),
        }
    }
}

/// Read in blocks of two records.
fn packed(stand: &Stand) -> Packed {
    let mut blocks = Vec::new();
    let records: Vec<_> = stand.iter().collect();
    for two in records.chunks(2) {
        let mut block = Records::keyed();
        two.iter().for_each(|(key, value)| block.put(key, |out| out.extend_from_slice(value)));
        blocks.push(Arc::new(block));
    }
    let mut packed = Packed::new((&blocks[0], 0), 1);
    for place in 1..records.len() {
        packed.push((&blocks[place / 2], place as u32 % 2));
    }
    packed
}

fn apply(cfg: &KernelConfig, state: &mut VehicleState, at: i64, reading: &crate::sequence::OwnedReading) {
    let mut batch = ReadingBatch::new(reading.origin.clone(), reading.values.len());
    batch.push(Head { at, position: at, record_time: NULL, meta: 0, element: 0 }, &reading.meta, &reading.values);
    state.apply(cfg, &[batch], &mut vec![Incoming { batch: 0, row: 0 }], &mut Outcome::default());
}

proptest! {
    /// Readings on a clock that goes on, some of them late enough to rewind; every now and then a checkpoint, after
    /// some of which the state is loaded from it.
    #[test]
    fn the_records_are_the_state(steps in prop::collection::vec((reading(150), 0i64..12, 0u8..8), 1..150)) {
        let cfg = Setup::default().build();
        let mut state = VehicleState::new(&cfg, "v".into());
        let mut stand = Stand::new();
        let mut now = 0;
        for (reading, step, then) in steps {
            now += step * 1_000_000;
            apply(&cfg, &mut state, now + reading.at / 2, &reading);
            if then < 3 {
                let mut records = Records::keyed();
                state.keep(|out| out.push(7), &mut records);
                merge(&mut stand, &records);
                let loaded = packed(&stand).unpack(true).unwrap();
                prop_assert_eq!(&loaded, &state);
                let parts = |s: &VehicleState| s.segments.iter().map(|s| s.stored.pieces.len() + 1).sum::<usize>();
                prop_assert_eq!(stand.len(), 1 + parts(&state), "records of what is gone stay");
                if then == 0 {
                    state = loaded;
                }
            }
        }
    }
}

#[test]
fn a_log_that_grew_is_not_written_again() {
    let cfg = Setup::default().build();
    let mut state = VehicleState::new(&cfg, "v".into());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let reading = proptest::strategy::ValueTree::current(&reading(1).new_tree(&mut runner).unwrap());
    let mut sizes = Vec::new();
    for second in 0..90 {
        apply(&cfg, &mut state, second * 1_000_000, &reading);
        if second % 10 == 9 {
            let mut records = Records::keyed();
            state.keep(|_| {}, &mut records);
            let log = records.iter().filter(|r| split_key(r.key).is_some_and(|(_, suffix)| suffix.len() > 8));
            sizes.push(log.map(|r| if let Change::Put(bytes) = r.change { bytes.len() } else { 0 }).sum::<usize>());
        }
    }
    assert_eq!(sizes.len(), 9);
    assert!(sizes.iter().all(|bytes| (1..400).contains(bytes)), "{sizes:?}");
}

#[test]
fn a_missing_record_is_said() {
    let cfg = Setup::default().build();
    let mut state = VehicleState::new(&cfg, "v".into());
    let mut records = Records::keyed();
    state.keep(|out| out.push(7), &mut records);
    let mut stand = Stand::new();
    merge(&mut stand, &records);
    stand.retain(|key, _| key.len() == 1);
    assert!(packed(&stand).unpack(true).unwrap_err().contains("is missing"));
    stand.insert(b"v\xff0000000x".to_vec(), vec![]);
    assert!(packed(&stand).unpack(true).is_err());
}
