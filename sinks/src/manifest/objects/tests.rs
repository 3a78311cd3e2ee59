use super::*;
use crate::manifest::bindings::{each_line_of_store, wall};
use crate::manifest::{ManifestWriter, bindings};
use crate::manifest::{epoch_at, manifest, wall_of};
use crate::progress::FileEntry;
use crate::store::Storage;
use drivetrain_schemas::table::TableId;
use object_store::local::LocalFileSystem;
use std::sync::Arc;

fn store(dir: &Path) -> Storage {
    let remote = Remote::new(Arc::new(LocalFileSystem::new_with_prefix(dir).unwrap()), "", "s3://b/p");
    Storage::new(Path::new("/nowhere"), Some(remote))
}

fn publication(generation: u64, commit: u64, names: &[&str]) -> Publication {
    let file = |name: &&str| {
        let (table, path, checksum) = (TableId::Trips, format!("history/trips_log/{name}"), String::new());
        FileEntry { table, path, rows: 1, bytes: 1, retractions: 0, min_epoch: 0, max_epoch: 0, checksum }
    };
    let (files, epoch) = (names.iter().map(file).collect(), commit as i64);
    Publication { format: 3, generation, commit, committed_epoch: epoch, history_epoch: epoch, files, end: false }
}

fn names(storage: &Storage) -> Vec<String> {
    let name = |f: FileEntry| f.path.rsplit('/').next().unwrap().to_string();
    manifest(storage).unwrap().files.into_iter().map(name).collect()
}

fn ticket(epoch: i64) -> Ticket {
    Ticket { epoch, wall: epoch * 10, ..Ticket::default() }
}

#[test]
fn the_highest_generation_counts_whatever_older_ones_still_write() {
    let dir = tempfile::tempdir().unwrap();
    let storage = &store(dir.path());
    assert_eq!(manifest(storage).unwrap().generation, 0);
    ManifestWriter::begin(storage, 9, &publication(9, 0, &[]), &[]).unwrap();
    let mut first = ManifestWriter::open(storage, 9, i64::MAX).unwrap();
    first.publish(&publication(9, 1, &["a", "b"])).unwrap();
    ManifestWriter::begin(storage, 10, &publication(10, 3, &["a", "b", "c"]), &[]).unwrap();
    for commit in 2..9 {
        first.publish(&publication(9, commit, &["wrong"])).unwrap();
    }
    assert_eq!(names(storage), ["a", "b", "c"]);
    assert_eq!((manifest(storage).unwrap().generation, manifest(storage).unwrap().commit), (10, 3));
    ManifestWriter::begin(storage, 11, &publication(11, 3, &["a"]), &[]).unwrap();
    let generations: Vec<u64> = objects(storage.remote().unwrap()).unwrap().iter().map(|o| o.generation).collect();
    assert_eq!(generations, [10, 11], "two are kept, for readers that have just begun");
    first.publish(&publication(9, 9, &["wrong"])).unwrap();
    assert_eq!(names(storage), ["a"]);
}

#[test]
fn two_instances_cannot_begin_one_generation() {
    let dir = tempfile::tempdir().unwrap();
    let storage = &store(dir.path());
    ManifestWriter::begin(storage, 1, &publication(1, 0, &[]), &[]).unwrap();
    // A request whose answer was lost is made again.
    ManifestWriter::begin(storage, 1, &publication(1, 0, &[]), &[]).unwrap();
    let error = ManifestWriter::begin(storage, 1, &publication(1, 0, &["other"]), &[]).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::AlreadyExists);
    let text = error.to_string();
    assert!(text.contains("s3://b/p/manifest/g1/0000000000-whole.json.zst") && text.contains("stop it"), "{text}");
}

#[test]
fn many_publications_become_one_object_and_readers_see_each_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let storage = &store(dir.path());
    ManifestWriter::begin(storage, 1, &publication(1, 0, &[]), &[]).unwrap();
    let mut writer = ManifestWriter::open(storage, 1, i64::MAX).unwrap();
    let count = || objects(storage.remote().unwrap()).unwrap().len();
    let counts: Vec<usize> = (1..8)
        .map(|commit| {
            writer.publish(&publication(1, commit, &[&format!("f{commit}")])).unwrap();
            assert_eq!((names(storage).len() as u64, manifest(storage).unwrap().commit), (commit, commit));
            count()
        })
        .collect();
    assert_eq!(counts, [2, 3, 1, 2, 3, 1, 2]);
    let mut again = ManifestWriter::open(storage, 1, i64::MAX).unwrap();
    again.publish(&publication(1, 8, &["f8"])).unwrap();
    assert_eq!(names(storage).len(), 8);
}

#[test]
fn a_listing_that_does_not_belong_together_is_not_read() {
    let object = |generation, number, whole| Object { generation, number, whole };
    assert_eq!(chosen(vec![]), Some(vec![]));
    let newest = vec![object(2, 4, true), object(2, 5, false)];
    let mut all = vec![object(1, 9, true), object(2, 2, true), object(2, 3, false)];
    all.extend(newest.clone());
    assert_eq!(chosen(all), Some(newest));
    assert_eq!(chosen(vec![object(1, 0, true), object(1, 2, false)]), None, "one is missing");
    assert_eq!(chosen(vec![object(1, 0, true), object(2, 3, false)]), None, "its whole one is gone");
    for o in [object(12, 7, true), object(1, 12, false)] {
        assert_eq!(Object::parse(&o.path()), Some(o));
    }
    assert_eq!(Object::parse("manifest/g1.jsonl"), None);
}

#[test]
fn damage_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let storage = &store(dir.path());
    ManifestWriter::begin(storage, 1, &publication(1, 0, &["a"]), &[]).unwrap();
    ManifestWriter::open(storage, 1, i64::MAX).unwrap().publish(&publication(1, 1, &["b"])).unwrap();
    for object in ["0000000000-whole.json.zst", "0000000001.json"] {
        let path = dir.path().join("manifest/g1").join(object);
        let good = std::fs::read(&path).unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let error = manifest(storage).unwrap_err().to_string();
            assert!(error.contains(object) && error.contains("--fresh"), "{object} {at}: {error}");
        }
        std::fs::write(&path, &good).unwrap();
    }
    assert_eq!(names(storage), ["a", "b"]);
}

/// Tickets are kept in few objects, none is lost between them, and the oldest go.
#[test]
fn bindings_grow_by_replacing_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let storage = &store(dir.path());
    let count = || segments_of(storage.remote().unwrap()).unwrap().len();
    let read = || bindings(&dir.path().join(BINDINGS)).unwrap().into_keys().collect::<Vec<i64>>();
    ManifestWriter::begin(storage, 1, &publication(1, 0, &[]), &[]).unwrap();
    let mut writer = ManifestWriter::open(storage, 1, i64::MAX).unwrap();
    writer.bind(&[ticket(0), ticket(1)]).unwrap();
    assert_eq!(count(), 0, "the progress log has them");
    for epoch in 2..40 {
        writer.bind(&[ticket(epoch)]).unwrap();
        writer.sync().unwrap();
        writer.sync().unwrap();
        assert_eq!(read(), (0..=epoch).collect::<Vec<_>>());
    }
    assert!(count() < 20, "{}", count());
    // A successor has those that the log still had, and its own.
    ManifestWriter::begin(storage, 2, &publication(2, 0, &[]), &[ticket(38), ticket(39)]).unwrap();
    let mut second = ManifestWriter::open(storage, 2, 200).unwrap();
    second.bind(&[ticket(40)]).unwrap();
    second.publish(&publication(2, 1, &["f"])).unwrap();
    assert_eq!(read(), (0..=40).collect::<Vec<_>>());
    assert_eq!((epoch_at(storage, 305).unwrap(), epoch_at(storage, -1).unwrap()), (Some(30), None));
    assert_eq!((wall_of(storage, Some(7)).unwrap(), wall_of(storage, None).unwrap()), (Some(70), Some(0)));
    for epoch in 41..90 {
        second.bind(&[ticket(epoch)]).unwrap();
    }
    second.sync().unwrap();
    let kept = read();
    assert!(*kept.first().unwrap() > 20 && *kept.last().unwrap() == 89, "{kept:?}");
    assert!((70..90).all(|epoch| kept.contains(&epoch)), "{kept:?}");
}

/// Everything that a reader has listed is replaced before it reads.
#[test]
fn a_reader_whose_objects_are_replaced_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let storage = &store(dir.path());
    let remote = storage.remote().unwrap();
    ManifestWriter::begin(storage, 1, &publication(1, 0, &[]), &[]).unwrap();
    let mut writer = ManifestWriter::open(storage, 1, i64::MAX).unwrap();
    let mut commit = 0;
    let mut publish = |count: u64| {
        for _ in 0..count {
            commit += 1;
            writer.publish(&publication(1, commit, &[&format!("f{commit}")])).unwrap();
        }
    };
    publish(1);
    let mut listings = 0;
    let manifest = listed_then(remote, || {
        listings += 1;
        // The first time up to a whole object, so that all before it go.
        publish(if listings == 1 { 2 } else { 0 });
    });
    let manifest = manifest.unwrap();
    assert_eq!((listings, manifest.commit, manifest.files.len()), (2, 3, 3));
    // Where none ever fits, it is said in the end.
    assert!(listed_then(remote, || publish(3)).is_err());
}

#[test]
fn a_reader_of_bindings_that_are_replaced_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let storage = &store(dir.path());
    let remote = storage.remote().unwrap();
    let mut writer = ObjectBindings::open(remote.clone(), 1, i64::MAX).unwrap();
    let more = std::cell::RefCell::new((&mut writer, 0..40));
    let write = |count: usize| {
        let (writer, epochs) = &mut *more.borrow_mut();
        for epoch in epochs.by_ref().take(count) {
            writer.add(&[ticket(epoch)]).unwrap();
            writer.sync().unwrap();
        }
    };
    write(20);
    let mut seen = std::collections::BTreeSet::new();
    let meanwhile = |segments: Vec<Segment>| {
        write(4);
        segments
    };
    each_line_of_store(remote, meanwhile, |line| _ = seen.insert(wall(line).unwrap().epoch)).unwrap();
    assert!(seen.len() >= 20 && seen.iter().copied().eq(0..seen.len() as i64), "{seen:?}");
    assert_eq!(std::fs::read_dir(dir.path().join(BINDINGS)).unwrap().count(), segments_of(remote).unwrap().len());
}
