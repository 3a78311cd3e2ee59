//! When files are merged, and what that costs.

use super::*;
use crate::checkpoint::merge::{TIERS, Tiers, plan};
use crate::checkpoint::thread::{CROWD, STEP};

/// Hands over checkpoints of the given sizes on top of a state. `merged`: the size of a merge's result.
/// Returns (bytes written again for each byte handed over, most files, most bytes for each byte of the state).
fn cost(state: u64, sizes: impl Iterator<Item = u64>, merged: fn(&[u64]) -> u64) -> (f64, usize, f64) {
    let (mut files, mut input, mut again, mut most, mut read) = (vec![state], 0, 0, 0, 0f64);
    for size in sizes {
        files.push(size);
        input += size;
        while let Some(from) = plan(&files, TIERS) {
            assert!(from + 1 < files.len(), "a merge of one file");
            let size = merged(&files[from..]);
            files.truncate(from);
            files.push(size);
            again += size;
        }
        most = most.max(files.len());
        let (bytes, whole) = (files.iter().sum::<u64>(), merged(&files));
        read = read.max(bytes.saturating_sub(TIERS.small) as f64 / whole as f64);
    }
    (again as f64 / input as f64, most, read)
}

/// Every checkpoint has keys of its own.
fn grows(files: &[u64]) -> u64 {
    files.iter().sum()
}

/// Every checkpoint has the same keys, or fewer of them.
fn stays(files: &[u64]) -> u64 {
    files.iter().copied().max().unwrap_or_default()
}

/// Sizes over three orders of magnitude, always the same ones.
fn uneven(n: usize) -> impl Iterator<Item = u64> {
    (0..n as u64).map(|i| 1 << ((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 11 + 10))
}

#[test]
fn merging_costs_a_logarithm() {
    for delta in [1_000, 100_000, 10_000_000, 1_000_000_000] {
        let deltas = || std::iter::repeat_n(delta, 3_000);
        for (name, (again, files, read), limit) in [
            ("new keys on little", cost(1_000, deltas(), grows), 8.0),
            ("new keys on much", cost(10_000_000_000, deltas(), grows), 12.0),
            ("the same keys on little", cost(delta, deltas(), stays), 0.6),
            ("the same keys on much", cost(10_000_000_000, deltas(), stays), 5.0),
        ] {
            println!("{delta:>13} B {name:>24}: {again:.2} times written again, {files} files, {read:.2} times read");
            assert!(again <= limit && files <= TIERS.files && read <= 3.0, "{delta} {name}: {again} {files} {read}");
        }
    }
    for state in [1_000, 1_000_000_000] {
        for merged in [grows, stays] {
            let (again, files, read) = cost(state, uneven(5_000), merged);
            assert!(again <= 12.0 && files <= TIERS.files && read <= 3.0, "{again} {files} {read}");
        }
    }
}

#[test]
fn nothing_is_merged_without_need() {
    const EAGER: Tiers = Tiers { files: 8, small: 0 };
    let none: [&[u64]; 4] = [&[], &[5], &[100, 99, 100], &[100, 5, 5, 5, 5, 5, 5, 5]];
    assert!(none.iter().all(|sizes| plan(sizes, EAGER).is_none()));
    assert_eq!(plan(&[100, 100, 100], EAGER), Some(0), "half of it is garbage, or more");
    assert_eq!(plan(&[100, 100, 100], Tiers { small: 201, ..EAGER }), None, "too small to care");
    assert_eq!(plan(&[900, 9, 8, 7, 6, 5, 4, 3, 2], EAGER), Some(1), "9 is no larger than the rest");
    assert_eq!(plan(&[1 << 20, 1 << 16, 1 << 13, 1 << 11, 1 << 9, 64, 32, 8, 1], EAGER), Some(5), "64 and 32 are near");
}

/// When checkpoints always wait, merges come first now and then.
#[test]
fn files_stay_few_when_checkpoints_always_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (commands, inbox) = unbounded();
    let (outbox, results) = unbounded();
    for epoch in 1..=60 {
        let parts = ["a", "b"].map(|op| keyed(op, 0, &[(&format!("{epoch:02}"), Some("v"))]));
        commands.send(Command::Write(epoch, parts.map(Into::into).into())).unwrap();
    }
    drop(commands);
    Keeper::new(Place::new(dir.path(), 1), None).run(&inbox, &outbox);
    let entries: Vec<CheckpointEntry> = results.try_iter().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 60);
    let most = TIERS.files + CROWD;
    let files = |entry: &CheckpointEntry, op: &str| entry.files.iter().filter(|f| f.operator == op).count();
    assert!(entries.iter().all(|e| files(e, "a") <= most && files(e, "b") <= most));
    assert!(["a", "b"].iter().all(|op| loaded(dir.path(), &entries[59], op).unwrap().len() == 60));
}

/// The newest files are merged while the oldest stays: what is gone must stay gone. And a merge that the owner's going
/// cuts off leaves nothing behind.
#[test]
fn a_merge_of_the_newest_files_hides_what_older_ones_have() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { tiers: Tiers { files: 2, small: 1 << 20 }, ..Place::new(dir.path(), 1) };
    let mut keeper = Keeper::new(place, None);
    let many: Vec<(String, Option<&str>)> = (0..99).map(|i| (format!("k{}", i * i * 7919), Some("v"))).collect();
    let many: Vec<(&str, Option<&str>)> = many.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    keeper.write(1, vec![keyed("op", 0, &many)]).unwrap();
    keeper.write(2, vec![keyed("op", 0, &[("k0", None)])]).unwrap();
    keeper.write(3, vec![keyed("op", 0, &[("new", Some("1"))])]).unwrap();
    assert!(keeper.plan().unwrap());
    keeper.step(STEP).unwrap();
    let entry = keeper.write(4, vec![keyed("op", 0, &[("newer", Some("2"))])]).unwrap();
    let epochs: Vec<(i64, i64)> = entry.files.iter().map(|f| (f.first_epoch, f.last_epoch)).collect();
    assert_eq!(epochs, [(0, 1), (2, 3), (4, 4)]);
    let state = loaded(dir.path(), &entry, "op").unwrap();
    assert!(state.len() == 100 && !state.contains_key(&b"k0"[..]), "{state:?}");

    assert!(keeper.plan().unwrap());
    keeper.step(1).unwrap();
    let unfinished = || files_in(dir.path()).iter().any(|f| f.ends_with(".tmp"));
    assert!(unfinished());
    let (outbox, _results) = unbounded();
    let (owner, inbox) = unbounded();
    drop(owner);
    keeper.run(&inbox, &outbox);
    assert!(!unfinished());
}
