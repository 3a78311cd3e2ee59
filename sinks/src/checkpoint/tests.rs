mod bench;
mod damage;
mod merging;
mod reference;

use super::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A value as [`load`] gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Bytes(Vec<u8>),
    Count(i64),
}

type State = BTreeMap<Vec<u8>, Got>;

/// A keyed part; `None` is gone.
fn keyed(operator: &str, worker: usize, changes: &[(&str, Option<&str>)]) -> PackedPart {
    let mut records = Records::keyed();
    for (key, value) in changes {
        match value {
            Some(value) => records.put(key.as_bytes(), |out| out.extend_from_slice(value.as_bytes())),
            None => records.remove(key.as_bytes()),
        }
    }
    Part { operator: operator.into(), worker, records }.into()
}

fn sum(operator: &str, worker: usize, changes: &[(&str, i64)]) -> PackedPart {
    let mut records = Records::sum();
    changes.iter().for_each(|(row, diff)| records.add(*diff, |out| out.extend_from_slice(row.as_bytes())));
    Part { operator: operator.into(), worker, records }.into()
}

/// Loads an operator; asserts order, uniqueness and the number of records.
fn loaded(data: &Path, entry: &CheckpointEntry, operator: &str) -> Result<State, CheckpointError> {
    let (mut state, mut last) = (State::new(), None);
    let records = load(data, entry, operator, &mut |key, value| {
        assert!(last.as_deref() < Some(key), "{key:?} comes after {last:?}");
        last = Some(key.to_vec());
        let got = match value {
            Value::Bytes(bytes) => Got::Bytes(bytes.to_vec()),
            Value::Count(count) => Got::Count(count),
        };
        state.insert(key.to_vec(), got);
    })?;
    assert_eq!(records, state.len() as u64);
    Ok(state)
}

fn bytes(state: &[(&str, &str)]) -> State {
    state.iter().map(|(k, v)| (k.as_bytes().to_vec(), Got::Bytes(v.as_bytes().to_vec()))).collect()
}

fn counts(state: &[(&str, i64)]) -> State {
    state.iter().map(|(k, n)| (k.as_bytes().to_vec(), Got::Count(*n))).collect()
}

/// All files below a directory, relative to it, in byte order.
fn files_in(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, root, found),
                false => found.push(path.strip_prefix(root).unwrap().display().to_string()),
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

fn paths(entry: &CheckpointEntry) -> Vec<String> {
    let mut paths: Vec<String> = entry.files.iter().map(|f| f.path.clone()).collect();
    paths.sort();
    paths
}

fn touch(path: PathBuf) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "x").unwrap();
}

#[test]
fn checkpoints_build_on_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let mut writer = Checkpointer::start(data, 3, None).unwrap();
    let first = vec![
        keyed("trips/a", 1, &[("k2", Some("two"))]),
        keyed("trips/a", 0, &[("k1", Some("old")), ("k3", Some("")), ("k1", Some("one"))]),
        sum("facts", 0, &[("r", 1), ("gone", 1), ("r", 2)]),
        sum("facts", 1, &[("r", 4), ("gone", -1)]),
        keyed("idle", 0, &[]),
        keyed("nothing to forget", 0, &[("k", None)]),
    ];
    writer.write(7, first).unwrap();
    writer
        .write(9, vec![keyed("trips/a", 0, &[("k1", None), ("k4", Some("4"))]), sum("facts", 1, &[("r", -7)])])
        .unwrap();
    writer.write(12, vec![keyed("idle", 0, &[])]).unwrap();
    let entries = writer.drain().unwrap();
    assert_eq!(entries.iter().map(|e| e.epoch).collect::<Vec<_>>(), [7, 9, 12]);

    let (trips, facts) = ("trips/a", "facts");
    assert_eq!(loaded(data, &entries[0], trips).unwrap(), bytes(&[("k1", "one"), ("k2", "two"), ("k3", "")]));
    assert_eq!(loaded(data, &entries[0], facts).unwrap(), counts(&[("r", 7)]));
    assert_eq!(loaded(data, &entries[1], trips).unwrap(), bytes(&[("k2", "two"), ("k3", ""), ("k4", "4")]));
    assert_eq!(loaded(data, &entries[1], facts).unwrap(), State::new());
    assert_eq!(loaded(data, &entries[1], "idle").unwrap(), State::new());
    assert_eq!(entries[2].files, entries[1].files, "nothing changed, so nothing was written");

    let names = ["facts-0-7-0", "facts-8-9-3", "trips_a-0-7-2", "trips_a-8-9-4"];
    assert_eq!(paths(&entries[1]), names.map(|n| format!("checkpoints/g3/{n}.ckpt")));
    assert_eq!(files_in(data), paths(&entries[1]), "one file for each operator and checkpoint, and no other");
    for file in &entries[1].files {
        let content = std::fs::read(data.join(&file.path)).unwrap();
        let (body, hash) = content.split_last_chunk::<8>().unwrap();
        assert_eq!(file.bytes, content.len() as u64);
        assert_eq!(file.checksum, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(body)));
        assert_eq!(xxhash_rust::xxh3::xxh3_64(body), u64::from_le_bytes(*hash));
    }
    let json = serde_json::to_string(&entries[1]).unwrap();
    assert_eq!(serde_json::from_str::<CheckpointEntry>(&json).unwrap(), entries[1]);

    drop(writer);
    let mut writer = Checkpointer::start(data, 4, Some(entries[2].clone())).unwrap();
    writer.write(13, vec![keyed(trips, 0, &[("k2", Some("zwei"))])]).unwrap();
    let entry = writer.drain().unwrap().pop().unwrap();
    assert_eq!(entry.files.len(), 5, "the base's files and one more");
    assert!(paths(&entry).contains(&"checkpoints/g4/trips_a-13-13-0.ckpt".to_string()), "{entry:?}");
    assert_eq!(loaded(data, &entry, trips).unwrap(), bytes(&[("k2", "zwei"), ("k3", ""), ("k4", "4")]));
}

#[test]
fn epochs_ascend() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Checkpointer::start(dir.path(), 1, None).unwrap();
    writer.write(5, Vec::new()).unwrap();
    assert!(matches!(writer.write(5, Vec::new()), Err(CheckpointError::Order { epoch: 5, last: 5 })));
    let base = writer.drain().unwrap().pop().unwrap();
    let mut writer = Checkpointer::start(dir.path(), 2, Some(base)).unwrap();
    assert!(matches!(writer.write(4, Vec::new()), Err(CheckpointError::Order { epoch: 4, last: 5 })));
    assert_eq!(writer.written().unwrap(), []);
}

/// The whole way with the real thread: entries stay loadable until named over, files stay few, old ones go away.
#[test]
fn files_stay_few_and_old_ones_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let mut writer = Checkpointer::start(data, 1, None).unwrap();
    let (mut state, mut merged, mut most) = (BTreeMap::new(), false, 0);
    let mut named: Option<CheckpointEntry> = None;
    for epoch in 1..=120 {
        let (own, shared) = (format!("k{epoch:04}"), epoch.to_string());
        let part = keyed("op", 0, &[(&own, Some("v")), ("shared", Some(&shared))]);
        state.insert(own, "v".to_string());
        state.insert("shared".to_string(), shared);
        writer.write(epoch, vec![part]).unwrap();
        for entry in writer.written().unwrap() {
            merged |= entry.files.iter().any(|f| f.first_epoch < f.last_epoch && f.last_epoch > 1);
            most = most.max(entry.files.len());
            named = (entry.epoch % 3 == 0).then_some(entry).or(named);
        }
        if let Some(named) = named.take_if(|e| e.epoch % 3 == 0) {
            writer.named(&named);
            assert!(loaded(data, &named, "op").unwrap().len() as i64 == named.epoch + 1);
        }
    }
    let last = writer.drain().unwrap().pop().unwrap();
    assert!(merged && most <= merge::TIERS.files + thread::CROWD, "merged {merged}, up to {most} files");
    let expected: Vec<(&str, &str)> = state.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(loaded(data, &last, "op").unwrap(), bytes(&expected));
    writer.write(121, vec![keyed("op", 0, &[("end", Some(""))])]).unwrap();
    let last = writer.drain().unwrap().pop().unwrap();
    writer.named(&last);
    drop(writer);
    let lie_about = files_in(data).into_iter().filter(|f| !paths(&last).contains(f)).count();
    assert!(lie_about <= 1, "at most a merge that no entry has named yet: {lie_about}");
    assert_eq!(sweep(data, u64::MAX, Some(&last)).unwrap().len(), lie_about);
    assert_eq!(files_in(data), paths(&last));
}

#[test]
fn a_sweep_deletes_what_nobody_names() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    assert_eq!(sweep(data, 13, None).unwrap(), Vec::<String>::new(), "there is nothing yet");
    let mut writer = Checkpointer::start(data, 1, None).unwrap();
    writer.write(1, vec![keyed("op", 0, &[("k", Some("1"))])]).unwrap();
    let keep = writer.drain().unwrap().pop().unwrap();
    writer.write(2, vec![keyed("op", 0, &[("k", Some("2"))])]).unwrap();
    writer.drain().unwrap();
    let foreign = [
        "checkpoints/g1/notes.txt",
        "checkpoints/g13/op-3-4-0.ckpt",
        "checkpoints/mine/a.ckpt",
        "checkpoints/a.ckpt",
        "history/g1/a.ckpt",
    ];
    let orphans = ["checkpoints/g12/op-3-4-0.ckpt", "checkpoints/g2/op-3-4-0.ckpt.tmp"];
    foreign.iter().chain(&orphans).for_each(|f| touch(data.join(f)));
    let deleted = sweep(data, 13, Some(&keep)).unwrap();
    assert_eq!(deleted, ["checkpoints/g1/op-2-2-1.ckpt", orphans[0], orphans[1]]);
    assert!(!data.join("checkpoints/g12").exists());
    assert_eq!(loaded(data, &keep, "op").unwrap(), bytes(&[("k", "1")]));
    assert_eq!(sweep(data, 13, None).unwrap(), paths(&keep));
    assert_eq!(files_in(data).len(), foreign.len(), "others' files and those of later generations are left alone");
}

/// `write` returns while one checkpoint is being written and one waits, and nothing is lost when it does not.
#[test]
fn everything_handed_over_comes_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Checkpointer::start(dir.path(), 1, None).unwrap();
    let mut epochs = Vec::new();
    for epoch in 0..30 {
        writer.write(epoch, vec![keyed("op", 0, &[(&epoch.to_string(), Some("v"))])]).unwrap();
        assert!(writer.pending <= QUEUE);
        if epoch % 7 == 0 {
            epochs.extend(writer.written().unwrap().into_iter().map(|e| e.epoch));
        }
    }
    epochs.extend(writer.drain().unwrap().into_iter().map(|e| e.epoch));
    assert_eq!(epochs, (0..30).collect::<Vec<i64>>());
}

#[test]
fn an_error_of_the_thread_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // A file stands where the directory should be.
    touch(dir.path().join(CHECKPOINTS));
    let mut writer = Checkpointer::start(dir.path(), 1, None).unwrap();
    writer.write(1, vec![keyed("op", 0, &[("k", Some("v"))])]).unwrap();
    let error = writer.drain().unwrap_err();
    assert!(matches!(&error, CheckpointError::File(e) if e.path.starts_with(dir.path())), "{error}");
    assert!(matches!(writer.written(), Err(CheckpointError::Gone)));

    let mut writer = Checkpointer::start(dir.path(), 1, None).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let error = (1..).find_map(|epoch| {
        assert!(Instant::now() < deadline, "the error is never told");
        writer.write(epoch, vec![keyed("op", 0, &[("k", Some("v"))])]).err()
    });
    assert!(matches!(error, Some(CheckpointError::File(_))), "handing over tells it too");
}

#[test]
fn a_file_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    for (name, left) in [("op-0-1-0.ckpt", true), ("op-0-1-0.ckpt.tmp", true)] {
        let path = dir.path().join("checkpoints/g1").join(name);
        touch(path.clone());
        let mut writer = Checkpointer::start(dir.path(), 1, None).unwrap();
        writer.write(1, vec![keyed("op", 0, &[("k", Some("v"))])]).unwrap();
        let error = writer.drain().unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("under our generation"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap() == b"x", left);
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn kinds_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Checkpointer::start(dir.path(), 1, None).unwrap();
    writer.write(1, vec![keyed("op", 0, &[("k", Some("v"))])]).unwrap();
    let base = writer.drain().unwrap().pop().unwrap();
    writer.write(2, vec![sum("op", 1, &[("k", 1)])]).unwrap();
    let error = writer.drain().unwrap_err().to_string();
    assert!(error.contains("operator op") && error.contains("worker 1"), "{error}");

    let mut writer = Checkpointer::start(dir.path(), 2, Some(base)).unwrap();
    writer.write(2, vec![sum("op", 1, &[("k", 1)])]).unwrap();
    let entry = writer.drain().unwrap().pop().unwrap();
    let error = loaded(dir.path(), &entry, "op").unwrap_err();
    assert!(matches!(&error, CheckpointError::Kind { place, .. } if place.contains("g2/op-2-2-0.ckpt")), "{error}");
}

#[test]
fn errors_name_their_remedy() {
    use std::io::ErrorKind::{NotFound, PermissionDenied, StorageFull};
    let error = |kind: std::io::ErrorKind| {
        let (action, path) = ("cannot write", PathBuf::from("d/checkpoints/g1/op-0-1-0.ckpt.tmp"));
        CheckpointError::File(crate::FileError { action, path, source: kind.into() })
    };
    let full = error(StorageFull);
    assert!(full.is_retryable() && full.to_string().contains("Make room there"), "{full}");
    assert!(full.to_string().starts_with("cannot write d/checkpoints/g1/op-0-1-0.ckpt.tmp: "), "{full}");
    let denied = error(PermissionDenied);
    assert!(!denied.is_retryable() && denied.to_string().contains("read and write there"), "{denied}");
    assert!(!error(NotFound).is_retryable() && !CheckpointError::Gone.is_retryable());
}
