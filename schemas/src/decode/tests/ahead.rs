//! Readings that go on together are those that go on one by one.

use super::*;
use crate::reading::ReadingBatch;
use proptest::prelude::*;

/// A record of one of a few vehicles, whose circumstances change now and then; some are broken, some have elements of which
/// the last may be.
fn record() -> impl Strategy<Value = String> {
    let vehicle = prop::sample::select(vec!["a", "b", "c", "d"]);
    let driver = prop::sample::select(vec!["null", "\"x\"", "\"x\"", "\"y\""]);
    let speed = prop::sample::select(vec!["1", "2.5", "\"fast\"", "999", "null"]);
    let elements = prop::collection::vec((vehicle, driver, speed, 0u8..8), 1..4);
    elements.prop_map(|elements| {
        let one = |(vehicle, driver, speed, fault): &(&str, &str, &str, u8)| match fault {
            0 => format!(r#"{{"vehicle_id":"{vehicle}"}}"#),
            _ => format!(
                r#"{{"vehicle_id":"{vehicle}","at":"2026-03-01T00:00:00Z","driver_id":{driver},"speed_kmh":{speed}}}"#
            ),
        };
        format!(r#"{{"all":[{}]}}"#, elements.iter().map(one).collect::<Vec<_>>().join(","))
    })
}

/// A batch as the source operator fills it.
struct Fill {
    batch: ReadingBatch,
    serial: u64,
    rejects: usize,
}

impl Accept for Fill {
    fn reading(&mut self, head: Head, interned: Interned<'_>, values: &[i64], invalid: &[u16]) {
        self.batch.push_interned(head, interned, self.serial, values);
        self.batch.mark_invalid(invalid);
    }
    fn trip(&mut self, _: TripPayload) {}
    fn reject(&mut self, _: Reject) {
        self.rejects += 1;
    }
}

proptest! {
    #[test]
    fn together_and_one_by_one(chunks in prop::collection::vec(prop::collection::vec(record(), 0..60), 1..4)) {
        let (mut together, mut single) = (decoder(r#"{"each":"all"}"#), decoder(r#"{"each":"all"}"#));
        for (serial, chunk) in chunks.iter().enumerate() {
            let (mut ours, mut theirs) = (IntakeCounts::default(), IntakeCounts::default());
            let batch = ReadingBatch::new(origin(), catalogue().width());
            let mut fill = Fill { batch, serial: serial as u64 + 1, rejects: 0 };
            let mut collect = Collect::default();
            let from = origin();
            for (position, text) in chunk.iter().enumerate() {
                let body = Body::Json(text.as_bytes());
                let position = position as i64;
                let record = Record { origin: &from, position, timestamp: None, key: None, headers: &[], body };
                together.decode_ahead(&record, &mut ours, &mut fill);
                single.decode(&record, &mut theirs, &mut collect);
            }
            together.flush(&mut fill);
            prop_assert_eq!((ours, fill.rejects), (theirs, collect.rejects.len()));
            prop_assert_eq!(fill.batch.len(), collect.readings.len());
            for (i, seen) in collect.readings.iter().enumerate() {
                let head = Head { meta: seen.head.meta, ..fill.batch.heads[i] };
                prop_assert_eq!((&head, fill.batch.meta(i), fill.batch.row(i)), (&seen.head, &seen.meta, &seen.values[..]));
                prop_assert_eq!(&fill.batch.invalid_of(i as u32).collect::<Vec<_>>(), &seen.invalid);
                prop_assert_eq!(fill.batch.hashes[fill.batch.heads[i].meta as usize], crate::key::hash(&seen.meta.vehicle));
            }
            // Each circumstances once, unless they come again after others of the vehicle.
            let same = fill.batch.metas.windows(2).filter(|pair| Arc::ptr_eq(&pair[0], &pair[1])).count();
            prop_assert_eq!(same, 0);
        }
    }
}
