//! Whatever happens to a file, loading says so and hands over no wrong record.

use super::*;
use crate::checkpoint::file::FileReader;
use crate::checkpoint::format::{self, PREAMBLE, TRAILER};

/// Two files of a keyed operator, the second with gone keys, and two of sums; a few blocks each.
fn checkpoint(data: &Path) -> CheckpointEntry {
    let mut keeper = Keeper::new(Place { block: 48, ..Place::new(data, 1) }, None);
    let long = "x".repeat(100);
    let first = [("a", Some("1")), ("b", Some("2")), ("c", Some(&*long)), ("d", Some("")), ("e", Some("5"))];
    let rows = [("row 1", 1), ("row 2", -2), ("row 3", i64::MAX), ("row 4", i64::MIN)];
    keeper.write(4, vec![keyed("op", 0, &first), sum("rows", 0, &rows)]).unwrap();
    let second = [("a", None), ("b", Some("zwei")), ("f", Some("6"))];
    keeper.write(8, vec![keyed("op", 0, &second), sum("rows", 0, &[("row 1", 1), ("row 5", 5)])]).unwrap()
}

/// Loads an operator of a damaged checkpoint; what comes before the error must be right. Returns the damaged byte
/// and what is said of it.
#[track_caller]
fn refused(data: &Path, entry: &CheckpointEntry, file: &CheckpointFile, truth: &State) -> (u64, String) {
    let mut truth = truth.iter();
    let result = load(data, entry, &file.operator, &mut |key, value| {
        let got = match value {
            Value::Bytes(bytes) => Got::Bytes(bytes.to_vec()),
            Value::Count(count) => Got::Count(count),
        };
        assert_eq!(truth.next(), Some((&key.to_vec(), &got)), "a wrong record");
    });
    match result {
        Err(CheckpointError::Damaged { path, offset, problem }) if path == data.join(&file.path) => (offset, problem),
        other => panic!("{other:?}"),
    }
}

/// Changes one byte of a file.
fn put(path: &Path, at: usize, byte: u8) {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte]).unwrap();
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let entry = checkpoint(dir.path());
    for file in &entry.files {
        let truth = loaded(dir.path(), &entry, &file.operator).unwrap();
        let path = dir.path().join(&file.path);
        let good = std::fs::read(&path).unwrap();
        for (at, mask) in (0..good.len()).flat_map(|at| [1, 0x80, 0xff].map(|mask| (at, mask))) {
            put(&path, at, good[at] ^ mask);
            let (offset, problem) = refused(dir.path(), &entry, file, &truth);
            let within = at as u64 - offset;
            // A block's head is not believed before it is checked: it says how much memory the block wants.
            let head = offset > PREAMBLE as u64 && within < format::BLOCK_HEAD as u64 && at < good.len() - TRAILER;
            assert_eq!(problem.contains("a block's head"), head, "byte {at}: at {offset}, {problem}");
            put(&path, at, good[at]);
        }
        assert_eq!(loaded(dir.path(), &entry, &file.operator).unwrap(), truth);
    }
}

/// The block is named, not only the file.
#[test]
fn damage_is_found_at_its_block() {
    let dir = tempfile::tempdir().unwrap();
    let entry = checkpoint(dir.path());
    let file = &entry.files[0];
    let truth = loaded(dir.path(), &entry, &file.operator).unwrap();
    let path = dir.path().join(&file.path);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - TRAILER - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (offset, _) = refused(dir.path(), &entry, file, &truth);
    assert!(offset > PREAMBLE as u64 + 50 && offset < last as u64, "{offset} of {last}");
    let error = loaded(dir.path(), &entry, &file.operator).unwrap_err().to_string();
    let said = format!("{}, byte {offset}: the checksum of a block", path.display());
    assert!(error.contains(&said) && error.contains("Restore the file") && error.contains("--fresh"), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let entry = checkpoint(dir.path());
    for (number, file) in entry.files.iter().enumerate() {
        let truth = loaded(dir.path(), &entry, &file.operator).unwrap();
        let path = dir.path().join(&file.path);
        let good = std::fs::read(&path).unwrap();
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(refused(dir.path(), &entry, file, &truth).0 <= length as u64);
            // Even when the entry believes that the file is so short.
            let mut entry = entry.clone();
            entry.files[number].bytes = length as u64;
            assert!(refused(dir.path(), &entry, file, &truth).0 <= length as u64);
        }
        std::fs::write(&path, [&good[..], b"\0"].concat()).unwrap();
        let (offset, problem) = refused(dir.path(), &entry, file, &truth);
        let (written, there) = (good.len(), good.len() + 1);
        assert_eq!(problem, format!("the file has {there} bytes where {written} were written"));
        assert_eq!(offset, written as u64);
        std::fs::write(&path, &good).unwrap();
    }
}

#[test]
fn another_file_or_none_in_its_place_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let entry = checkpoint(dir.path());
    let file = &entry.files[0];
    let path = dir.path().join(&file.path);
    // The same operator and epochs, the same size, another value: a good file, but not this checkpoint's.
    let other = tempfile::tempdir().unwrap();
    let mut keeper = Keeper::new(Place { block: 48, ..Place::new(other.path(), 1) }, None);
    let long = "x".repeat(100);
    let first = [("a", Some("9")), ("b", Some("2")), ("c", Some(&*long)), ("d", Some("")), ("e", Some("5"))];
    let another = keeper.write(4, vec![keyed("op", 0, &first)]).unwrap();
    let (from, mut same) = (other.path().join(&another.files[0].path), another.files[0].clone());
    same.checksum = file.checksum.clone();
    assert_eq!(&same, file, "only the checksum tells them apart");
    std::fs::copy(from, &path).unwrap();
    let mut handed = 0;
    let result = load(dir.path(), &entry, "op", &mut |_, _| handed += 1);
    assert!(matches!(result, Err(CheckpointError::Damaged { .. })) && handed == 0);

    std::fs::remove_file(&path).unwrap();
    let error = loaded(dir.path(), &entry, "op").unwrap_err();
    assert!(matches!(&error, CheckpointError::Missing { path: p } if *p == path), "{error}");
    assert!(error.to_string().contains("--fresh"), "{error}");
}

/// A whole file with blocks that the checksums cannot fault: what a broken writer would make.
#[test]
fn records_out_of_order_are_found() {
    use drivetrain_schemas::records::{Change, Record, RecordKind};
    let dir = tempfile::tempdir().unwrap();
    let (kind, operator) = (RecordKind::Keyed, "op".to_string());
    for (n, block, keys) in [(0, 1, [b"a", b"a"]), (1, 1, [b"b", b"a"]), (2, 99, [b"a", b"a"]), (3, 99, [b"b", b"a"])] {
        let header = format::Header { kind, operator: operator.clone(), generation: 1, first_epoch: 0, last_epoch: n };
        let place = Place { block, ..Place::new(dir.path(), 1) };
        let mut writer = file::FileWriter::create(&place, header, 0).unwrap();
        keys.iter().for_each(|key| writer.push(&Record { key: &key[..], change: Change::Put(b"v") }).unwrap());
        let file = writer.finish().unwrap();
        let entry = CheckpointEntry { format: FORMAT, epoch: n, files: vec![file] };
        let error = loaded(dir.path(), &entry, "op").unwrap_err().to_string();
        assert!(error.contains("out of order"), "{error}");
    }
}

#[test]
fn another_format_is_refused_by_the_name_of_its_writer() {
    let dir = tempfile::tempdir().unwrap();
    let mut entry = checkpoint(dir.path());
    let path = dir.path().join(&entry.files[0].path);
    let good = std::fs::read(&path).unwrap();
    let mut bytes = good.clone();
    bytes[8..12].copy_from_slice(&7u32.to_le_bytes());
    bytes[16..36].copy_from_slice(b"9.8.7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let crc = crc32fast::hash(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = loaded(dir.path(), &entry, "op").unwrap_err();
    assert!(
        matches!(&error, CheckpointError::Format { found: 7, writer, .. } if writer == "drivetrain 9.8.7"),
        "{error}"
    );
    let error = error.to_string();
    let ours = format!("understands format {FORMAT}");
    let said = ["has format 7", "written by drivetrain 9.8.7", &ours, "Run drivetrain 9.8.7", "--fresh"];
    assert!(said.iter().all(|s| error.contains(s)) && error.contains(&path.display().to_string()), "{error}");

    // An entry of another format is refused before its files are looked at.
    entry.format = 7;
    let error = Checkpointer::start(dir.path(), 2, Some(entry.clone())).unwrap_err().to_string();
    assert!(error.contains("the checkpoint of epoch 8 has format 7, written by drivetrain 9.8.7;"), "{error}");
    std::fs::write(&path, &good).unwrap();
    let error = loaded(dir.path(), &entry, "op").unwrap_err().to_string();
    assert!(error.contains("written by another version"), "{error}");
}

/// One record may be larger than a block, and a reader holds one block only.
#[test]
fn large_records_and_many_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::keyed();
    records.put(b"big", |out| out.extend_from_slice(&[7; 1 << 20]));
    (0..5000u32).for_each(|i| records.put(&i.to_be_bytes(), |out| out.extend_from_slice(&[i as u8; 100])));
    let mut keeper = Keeper::new(Place::new(dir.path(), 1), None);
    let entry = keeper.write(1, vec![Part { operator: "op".into(), worker: 0, records }.into()]).unwrap();
    let state = loaded(dir.path(), &entry, "op").unwrap();
    assert_eq!(state.len(), 5001);
    assert_eq!(state[&b"big"[..]], Got::Bytes(vec![7; 1 << 20]));
    assert!((0..5000u32).all(|i| state[&i.to_be_bytes()[..]] == Got::Bytes(vec![i as u8; 100])));
    let header = FileReader::open(dir.path(), &entry.files[0]).unwrap().header().clone();
    assert_eq!((header.operator.as_str(), header.generation, header.last_epoch), ("op", 1, 1));
}
