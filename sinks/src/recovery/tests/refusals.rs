//! What a start refuses, and what it says then.

use super::model::{Ending, WALL};
use super::world::{Run, World};
use super::*;
use crate::live::LocalOutlet;
use crate::message::Ticket;
use crate::progress::data::Held;
use crate::progress::{ProgressEntry, ProgressRecord};
use std::collections::BTreeMap;

/// A run that was killed with a checkpoint and epochs left to repeat after it.
fn killed() -> World {
    // When the history's thread closes files depends on time, and so does in which commit a checkpoint is named.
    for nth in 8..40 {
        let world = World::new(false, true, Ending::Stop);
        world.run(&Run::killed_at("commit.after", nth)).unwrap_err();
        let after = world.checkpoint().map_or(i64::MAX, |c| c.epoch);
        if world.records().last().unwrap().committed_epoch > after {
            return world;
        }
    }
    panic!("no checkpoint was ever named before the end");
}

#[test]
fn another_version_has_to_wait_for_a_clean_stop() {
    let world = killed();
    let (files, records) = (world::files_below(&world.data()), world.records());
    let error = world.run(&Run { version: "next", ..Run::default() }).unwrap_err();
    for part in ["epochs of an earlier run are left", "version has changed", "from v to next", "SIGTERM", "--fresh"] {
        assert!(error.contains(part), "{part:?} is missing in {error}");
    }
    assert_eq!((world::files_below(&world.data()), world.records()), (files, records), "nothing was changed");
    world.run(&Run::default()).unwrap();
    world.run(&Run { version: "next", ..Run::default() }).unwrap();
}

#[test]
fn results_that_differ_stop_the_job_before_anything_is_written() {
    let world = killed();
    let records = world.records();
    let (next, last) = (world.checkpoint().map_or(0, |c| c.epoch + 1), records.last().unwrap().committed_epoch);
    assert!(next <= last, "there must be something to repeat");
    let error = world.run(&Run { bug: Some(next), ..Run::default() }).unwrap_err();
    for part in ["gave other results than were committed", "the digest of ", "Nothing was written", "--fresh"] {
        assert!(error.contains(part), "{part:?} is missing in {error}");
    }
    assert_eq!(world.records(), records);
    // Without the bug it goes on as if that had not been.
    world.run(&Run::default()).unwrap();
    let whole = World::new(false, true, Ending::Stop);
    whole.run(&Run::default()).unwrap();
    assert_eq!(world.seen(), whole.seen());
}

#[test]
fn a_damaged_checkpoint_stops_the_start() {
    let world = killed();
    let entry = world.checkpoint().unwrap();
    let file = entry.files.iter().find(|f| f.operator == "committer").unwrap();
    let path = world.data().join(&file.path);
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = world.run(&Run::default()).unwrap_err();
    assert!(error.contains(&file.path) && error.contains("--fresh"), "{error}");
    std::fs::write(&path, whole).unwrap();
    world.run(&Run::default()).unwrap();
}

#[test]
fn another_job_and_a_history_without_a_log() {
    let world = killed();
    let start = |job: &str| {
        let data = DataDir::lock(&world.data(), job, WALL, Held::Refuse).unwrap();
        let mut outlet = LocalOutlet::open(&data).unwrap();
        let identity =
            Identity { job: job.into(), config_hash: "c".into(), version: "v".into(), sections: BTreeMap::new() };
        recovery_start(&data, &mut outlet, &identity).unwrap_err()
    };
    let error = start("other");
    assert!(error.is_usage() && error.to_string().contains("earlier run of job \"job\""), "{error}");
    std::fs::remove_file(world.data().join("progress/log.jsonl")).unwrap();
    let error = start("job");
    assert!(matches!(error, RecoveryError::NoProgress { .. }) && error.to_string().contains("--fresh"), "{error}");
}

fn recovery_start(data: &DataDir, outlet: &mut dyn Outlet, identity: &Identity) -> Result<Start, RecoveryError> {
    super::super::start(data, outlet, identity)
}

/// A commit with these epochs.
fn commit(number: u64, generation: u64, epochs: &[i64], checkpoint: Option<i64>) -> ProgressEntry {
    let epochs: Vec<Ticket> = epochs.iter().map(|e| Ticket { epoch: *e, ..Ticket::default() }).collect();
    ProgressEntry::Commit(ProgressRecord {
        format: FORMAT,
        generation,
        commit: number,
        committed_epoch: epochs.last().map_or(-1, |t| t.epoch),
        epochs,
        checkpoint: checkpoint.map(|epoch| CheckpointEntry { format: 1, epoch, files: vec![] }),
        ..ProgressRecord::default()
    })
}

#[test]
fn a_log_with_something_missing_is_damaged() {
    let of = |entries: Vec<ProgressEntry>| past::Past::of(entries, "j");
    let past = of(vec![commit(4, 2, &[7, 8], None), commit(5, 2, &[9], Some(7)), commit(6, 3, &[10], None)]).unwrap();
    assert_eq!((past.generation, past.committed(), past.after()), (4, 10, 7));
    for (entries, problem) in [
        (vec![commit(1, 1, &[0], None), commit(3, 1, &[1], None)], "commit 3 follows commit 1"),
        (vec![commit(1, 1, &[0, 2], None)], "epoch 1 is missing before epoch 2"),
        (vec![commit(4, 2, &[7, 8], None)], "epoch 0 is missing"),
        (vec![commit(4, 2, &[7, 8], Some(5))], "epoch 6 is missing"),
        (vec![commit(1, 2, &[0], None), commit(2, 1, &[1], None)], "generation 1 stands behind generation 2"),
    ] {
        let error = of(entries).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains("--fresh"), "{error}");
    }
    let ProgressEntry::Commit(old) = commit(1, 1, &[0], None) else { return };
    let error = of(vec![ProgressEntry::Commit(ProgressRecord { format: 0, version: "0.0.9".into(), ..old })]);
    assert!(error.unwrap_err().to_string().contains("Run drivetrain 0.0.9"));
}

/// Operators' state is that of the sections with which it was made.
#[test]
fn another_section_is_refused_after_a_clean_stop() {
    let sections = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let run = |pairs: &[(&str, &str)]| Run { sections: sections(pairs), ..Run::default() };
    let mut world = World::new(false, true, Ending::Stop);
    world.run(&run(&[("policy", "1"), ("time", "1")])).unwrap();
    world.until += 5;
    let log = || std::fs::read(world.data().join("progress/log.jsonl")).unwrap();
    let before = log();
    for (pairs, section) in [(&[("policy", "1"), ("time", "2")][..], "`time`"), (&[("time", "1")], "`policy`")] {
        let error = world.run(&run(pairs)).unwrap_err();
        assert!(error.contains(section) && error.contains("--fresh"), "{error}");
        assert_eq!(error.contains("as a document"), section == "`policy`", "{error}");
    }
    assert!(log() == before, "a refused start has written");
    world.run(&run(&[("policy", "1"), ("sources.new", "1"), ("time", "1")])).unwrap();
    assert_eq!(world.seen().tickets_until(), world.until);
}

#[test]
fn a_claim_alone_is_no_progress() {
    let world = World::new(false, true, Ending::Stop);
    world.run(&Run::killed_at("commit.before", 1)).unwrap_err();
    // The record of the first commit was written, so take it back: as if the kill had come before.
    let path = world.data().join("progress/log.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.lines().next().unwrap().to_string() + "\n").unwrap();
    assert!(!world::files_below(&world.data().join("live")).is_empty());
    world.run(&Run::default()).unwrap();
    let whole = World::new(false, true, Ending::Stop);
    whole.run(&Run::default()).unwrap();
    assert_eq!(world.seen(), whole.seen());
}
