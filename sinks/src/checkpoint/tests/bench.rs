//! Figures, on demand: `cargo test --release --lib -- --ignored --nocapture a_million_keys`.

use super::*;

const KEYS: u32 = 1_000_000;

/// Values of 300 bytes that look like counters and sums: some bytes vary, most do not.
fn records(keys: impl Iterator<Item = u32>, salt: u64) -> Records {
    let mut records = Records::keyed();
    for i in keys {
        // Vehicles come in no order.
        let vehicle = format!("vehicle-{:08x}/speed", i.wrapping_mul(0x9e37_79b1));
        records.put(vehicle.as_bytes(), |out| {
            let end = out.len() + 300;
            for word in 0..20u64 {
                let noise = (u64::from(i) + word * 7919 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                out.extend_from_slice(&(noise >> 40).to_le_bytes());
            }
            out.resize(end, 0);
        });
    }
    records
}

#[test]
#[ignore = "prints figures; wants a release build"]
fn a_million_keys() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let mb = |entry: &CheckpointEntry| entry.files.iter().map(|f| f.bytes).sum::<u64>() as f64 / 1e6;
    let mut keeper = Keeper::new(Place::new(data, 1), None);
    let parts = |keys: u32, salt| {
        let of = |worker: u32| records((0..keys).filter(move |i| i % 2 == worker), salt);
        (0..2).map(|w| Part { operator: "op".into(), worker: w as usize, records: of(w) }.into()).collect::<Vec<_>>()
    };
    let load = |entry: &CheckpointEntry, what: &str| {
        let (start, mut bytes) = (Instant::now(), 0);
        let records = load(data, entry, "op", &mut |key, value| match value {
            Value::Bytes(value) => bytes += key.len() + value.len(),
            Value::Count(_) => {}
        });
        let (time, files) = (start.elapsed(), entry.files.len());
        println!("load {what}: {time:.2?}, {} records, {bytes} plain bytes, {files} files", records.unwrap());
    };

    let all = parts(KEYS, 1);
    let start = Instant::now();
    let entry = keeper.write(1, all).unwrap();
    println!("write {KEYS} keys of 300 bytes: {:.2?}, {:.0} MB", start.elapsed(), mb(&entry));
    load(&entry, "one file");

    let mut entry = entry;
    for epoch in 2..=8 {
        let tenth = parts(KEYS / 10, epoch as u64);
        let start = Instant::now();
        entry = keeper.write(epoch, tenth).unwrap();
        if epoch == 8 {
            println!("write a tenth of them: {:.2?}", start.elapsed());
        }
    }
    println!("with 7 tenths more: {:.0} MB", mb(&entry));
    load(&entry, "with 7 tenths more");
    let start = Instant::now();
    let files = entry.files.clone();
    let merged = Merged::open(data, &files, true).unwrap();
    let header =
        format::Header { kind: merged.kind(), operator: "op".into(), generation: 1, first_epoch: 0, last_epoch: 8 };
    let mut run = merge::Run::new(merged, &Place::new(data, 1), header, 99);
    let (mut longest, mut steps) = (Duration::ZERO, 0);
    loop {
        let before = Instant::now();
        let done = run.step(4096).unwrap();
        (longest, steps) = (longest.max(before.elapsed()), steps + 1);
        if done {
            break;
        }
    }
    run.finish().unwrap();
    println!("merge all of it: {:.2?} in {steps} steps, the longest {longest:.2?}", start.elapsed());
}
