use super::super::block::{Fetched, Pool};
use super::*;
use drivetrain_schemas::decode::Body;
use drivetrain_schemas::reading::Origin;
use proptest::prelude::*;
use std::sync::Arc;

type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A record as a producer has it; its offset is that in the partition.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
}

fn put(out: &mut Vec<u8>, n: i64) {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put(out, bytes.map_or(-1, |b| b.len() as i64));
    out.extend(bytes.unwrap_or_default());
}

/// What a batch is made of.
#[derive(Clone, Debug, Default)]
struct Made {
    base: i64,
    span: i64,
    records: Vec<Sent>,
    gzip: bool,
    /// Producer of a transaction.
    transaction: Option<i64>,
    control: bool,
    appended: Option<i64>,
}

/// The batch as a broker keeps it, written from the description of the format.
fn write(made: &Made) -> Vec<u8> {
    let mut records = Vec::new();
    let first = made.records.first().map_or(0, |r| r.timestamp);
    for r in &made.records {
        let mut body = vec![0];
        put(&mut body, r.timestamp - first);
        put(&mut body, r.offset - made.base);
        put_bytes(&mut body, r.key.as_deref());
        put_bytes(&mut body, r.value.as_deref());
        put(&mut body, r.headers.len() as i64);
        for (name, value) in &r.headers {
            put_bytes(&mut body, Some(name.as_bytes()));
            put_bytes(&mut body, value.as_deref());
        }
        put(&mut records, body.len() as i64);
        records.extend(body);
    }
    if made.gzip {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &records).unwrap();
        records = encoder.finish().unwrap();
    }
    let flags = [(made.gzip, 1), (made.appended.is_some(), 8), (made.transaction.is_some(), 16), (made.control, 32)];
    let attributes: i16 = flags.iter().map(|(on, bit)| if *on { *bit } else { 0 }).sum();
    let mut checked = attributes.to_be_bytes().to_vec();
    checked.extend((made.span as i32 - 1).to_be_bytes());
    checked.extend(first.to_be_bytes());
    checked.extend(made.appended.unwrap_or(first).to_be_bytes());
    checked.extend(made.transaction.unwrap_or(-1).to_be_bytes());
    checked.extend([0; 6]);
    checked.extend((made.records.len() as i32).to_be_bytes());
    checked.extend(records);
    let mut out = made.base.to_be_bytes().to_vec();
    out.extend((checked.len() as i32 + 9).to_be_bytes());
    out.extend([0, 0, 0, 0, 2]);
    out.extend(crc32c::crc32c(&checked).to_be_bytes());
    out.extend(checked);
    out
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

fn sent() -> impl Strategy<Value = Sent> {
    let headers = prop::collection::vec(("[a-z]{0,3}", prop::option::of(bytes())), 0..3);
    let time = prop_oneof![Just(-1i64), 0i64..1 << 42];
    (time, prop::option::of(bytes()), prop::option::of(bytes()), headers)
        .prop_map(|(timestamp, key, value, headers)| Sent { offset: 0, timestamp, key, value, headers })
}

/// Batches one behind the other, with gaps between and within them, as compaction leaves them; each has the records of one
/// transaction or of none, and transactions end with a marker.
fn log() -> impl Strategy<Value = (Vec<Made>, Vec<(i64, i64)>)> {
    let batch = (prop::collection::vec((0i64..3, sent()), 0..6), 0i64..3, any::<bool>(), prop::option::of(0i64..3));
    let batch = (batch, any::<bool>(), prop::option::of(1i64..1 << 40), any::<bool>());
    prop::collection::vec(batch, 0..8).prop_map(|all| {
        let (mut log, mut aborted, mut next) = (Vec::<Made>::new(), Vec::new(), 10i64);
        let mut open = std::collections::BTreeMap::<i64, i64>::new();
        for ((records, gap, gzip, transaction), ends, appended, aborts) in all {
            let base = next + gap;
            next = base;
            let placed = records.into_iter().map(|(gap, r)| {
                let offset = next + gap;
                next = offset + 1;
                Sent { offset, ..r }
            });
            let records: Vec<Sent> = placed.collect();
            next = next.max(base + 1);
            log.push(Made { base, span: next - base, records, gzip, transaction, control: false, appended });
            let Some(producer) = transaction else { continue };
            let first = *open.entry(producer).or_insert(base);
            if ends {
                let key = Some(vec![0, 0, 0, u8::from(!aborts)]);
                let marker = Sent { offset: next, timestamp: 5, key, value: Some(vec![0; 6]), headers: Vec::new() };
                let records = vec![marker];
                log.push(Made { base: next, span: 1, records, transaction, control: true, ..Made::default() });
                next += 1;
                open.remove(&producer);
                if aborts {
                    aborted.push((producer, first));
                }
            }
        }
        aborted.sort_by_key(|(_, first)| *first);
        (log, aborted)
    })
}

/// The obvious way: a record is to be seen unless a marker of its producer behind it belongs to an aborted transaction that
/// began before it.
fn expected(log: &[Made], aborted: &[(i64, i64)], from: i64) -> Vec<Sent> {
    let mut seen = Vec::new();
    for (i, made) in log.iter().enumerate().filter(|(_, made)| !made.control) {
        let began = |producer| {
            let before = log[..i].iter().rposition(|m| m.control && m.transaction == Some(producer));
            log[before.map_or(0, |b| b + 1)..].iter().find(|m| m.transaction == Some(producer)).map(|m| m.base)
        };
        if made.transaction.is_some_and(|p| aborted.iter().any(|a| Some(*a) == began(p).map(|first| (p, first)))) {
            continue;
        }
        let time = |r: &Sent| made.appended.unwrap_or(r.timestamp);
        seen.extend(made.records.iter().filter(|r| r.offset >= from).map(|r| Sent { timestamp: time(r), ..r.clone() }));
    }
    seen
}

fn read(block: Block) -> Vec<Sent> {
    let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
    let count = block.places.len();
    let records = Fetched::new(Arc::new(block), 0..count, true);
    let mut all = Vec::new();
    records.visit(0..count, &origin, None, &mut |r| {
        let value = match r.body {
            Body::Json(bytes) => Some(bytes.to_vec()),
            _ => None,
        };
        let headers = r.headers.iter().map(|(name, value)| (name.to_string(), value.map(<[u8]>::to_vec)));
        let (offset, timestamp) = (r.position, r.timestamp.map_or(-1, |us| us / 1000));
        all.push(Sent { offset, timestamp, key: r.key.map(<[u8]>::to_vec), value, headers: headers.collect() });
    });
    all
}

proptest! {
    #[test]
    fn committed_records_come_out_as_they_were_sent((log, aborted) in log(), from in 0i64..40, cut in 0usize..300) {
        let mut bytes: Vec<u8> = log.iter().flat_map(write).collect();
        // The beginning of one more, which the broker has cut off.
        let more = write(&Made { base: 1000, span: 1, ..Made::default() });
        bytes.extend(&more[..cut.min(more.len() - 1)]);
        let batches = batches(&bytes).unwrap();
        prop_assert_eq!(batches.len(), log.len());
        prop_assert_eq!(batches.iter().map(|b| b.end).collect::<Vec<_>>(), log.iter().map(|m| m.base + m.span).collect::<Vec<_>>());
        let pool = Arc::new(Pool::default());
        // Also into memory that was used before.
        for _ in 0..2 {
            let (mut hidden, mut seen) = (Aborted::new(aborted.clone()), Vec::new());
            // In several blocks.
            for some in batches.chunks(3) {
                let mut block = pool.take();
                committed(some, &mut hidden, from, true, &mut block).unwrap();
                seen.extend(read(block));
            }
            let expected = expected(&log, &aborted, from);
            seen.iter_mut().filter(|r| r.timestamp < 0).for_each(|r| r.timestamp = -1);
            prop_assert_eq!(seen, expected);
        }
    }

    /// Whatever stands there, it is an error or records, and never more than whole batches.
    #[test]
    fn damage_is_no_panic((log, aborted) in log(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes: Vec<u8> = log.iter().flat_map(write).collect();
        for (place, byte) in flips {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        if let Ok(batches) = batches(&bytes) {
            let mut block = Block::default();
            if committed(&batches, &mut Aborted::new(aborted), 0, false, &mut block).is_ok() {
                read(block);
            }
        }
    }

    #[test]
    fn a_changed_byte_does_not_have_its_checksum(sent in sent(), place in any::<prop::sample::Index>()) {
        let mut bytes = write(&Made { base: 3, span: 1, records: vec![Sent { offset: 3, ..sent }], ..Made::default() });
        let place = 21 + place.index(bytes.len() - 21);
        bytes[place] ^= 1;
        // The place that says how many offsets there are may make it another batch, or none.
        if let Ok(batches) = batches(&bytes) {
            let mut block = Block::default();
            prop_assert!(committed(&batches, &mut Aborted::new(Vec::new()), 0, true, &mut block).is_err());
            prop_assert!(block.places.is_empty() && block.buffer.len() == 0);
        }
    }
}

#[test]
fn an_old_format_says_what_to_do() {
    let mut bytes = vec![0; 16];
    bytes.extend([1, 0, 0, 0]);
    assert!(batches(&bytes).unwrap_err().contains("kafka.reader"));
}
