//! An instance that is stopped at any step, overtaken, and continued changes nothing that anybody reads.

use super::model::Ending;
use super::world::{Run, World, files_below};
use super::*;
use crate::failpoint::{Plan, STEPS};
use crossbeam_channel::bounded;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::Scope;
use std::time::Duration;

/// Files of which nobody reads what an older generation adds or takes away.
fn files(world: &World) -> BTreeMap<PathBuf, u64> {
    let data = world.data();
    let named = world.checkpoint().into_iter().flat_map(|c| c.files).map(|f| data.join(f.path));
    // g10 after g9; in a store the number of the object after that.
    let length = |p: &Path| p.file_stem().map(|s| s.len());
    let newest = |dir: &str| match world.is_on_store() {
        false => files_below(&data.join(dir)).into_iter().max_by_key(|p| length(p)),
        true => files_below(&data.join(dir)).into_iter().max_by_key(|p| (p.parent().and_then(length), p.clone())),
    };
    let manifest = newest("manifest");
    let mut history = files_below(&data.join("history"));
    history.retain(|path| !path.to_string_lossy().contains('#'));
    let all = history.into_iter().chain(named).chain(manifest);
    let hash =
        |path: &PathBuf| xxhash_rust::xxh3::xxh3_64(&std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}")));
    all.map(|path| (path.clone(), hash(&path))).collect()
}

/// What a restart takes from the progress log.
fn needed(world: &World) -> (i64, Option<CheckpointEntry>, Vec<i64>) {
    let past = past::Past::of(world.entries(), "job").unwrap();
    let after = past.after();
    let tickets = past.tickets.iter().map(|t| t.epoch).filter(|e| *e > after).collect();
    (past.committed(), past.checkpoint, tickets)
}

/// A run that stops at a step until it is let go on.
struct Stopped<'s> {
    run: std::thread::ScopedJoinHandle<'s, Result<(), String>>,
    go_on: crossbeam_channel::Sender<()>,
}

/// Starts a run and waits until it has come to the step; `None` when it has ended before.
fn stop<'s>(scope: &'s Scope<'s, '_>, world: &'s World, step: &str, nth: u64) -> Option<Stopped<'s>> {
    let (reached, stopped) = bounded::<()>(1);
    let (go_on, continued) = bounded::<()>(1);
    let pause = move || {
        let _ = reached.send(());
        let _ = continued.recv();
        Ok(())
    };
    let plan = Run { plan: Plan::new(step, nth, pause), ..Run::default() };
    let run = scope.spawn(move || world.run(&plan));
    while stopped.recv_timeout(Duration::from_millis(10)).is_err() {
        if run.is_finished() {
            assert_eq!(run.join().unwrap(), Ok(()), "{step}:{nth}");
            return None;
        }
    }
    Some(Stopped { run, go_on })
}

impl Stopped<'_> {
    /// Lets it go on to its end, which must be clear when it is an error.
    fn end(self) {
        drop(self.go_on);
        if let Err(error) = self.run.join().unwrap() {
            assert!(error.contains("another instance (a later generation) has taken over job \"job\""), "{error}");
        }
    }
}

/// Stops a run at a step, lets another one run to the end, then continues it. False when the step is not reached so
/// often.
fn overtaken(world: &World, step: &str, nth: u64, expected: &Seen) -> bool {
    std::thread::scope(|scope| {
        let Some(zombie) = stop(scope, world, step, nth) else { return false };
        world.run(&Run::default()).unwrap();
        let before = (files(world), world.seen(), needed(world));
        zombie.end();
        assert_eq!((files(world), world.seen(), needed(world)), before, "{step}:{nth}");
        assert_eq!(before.1, *expected, "{step}:{nth}");
        // And the next start finds everything in order.
        world.run(&Run::default()).unwrap();
        assert_eq!((world.seen(), world.left_over()), (before.1, vec![]), "{step}:{nth}");
        true
    })
}

#[test]
fn continued_while_its_successor_is_at_work() {
    let (_, expected) = undisturbed(Ending::Stop);
    let mut both = 0;
    for step in ["claim.after", "recovery.publish", "recovery.live", "produce.before", "publish.before", "trim.before"]
    {
        for at in ["recovery.sweep", "final_files", "commit.after", "publish.between", "history.closed", "trim.after"] {
            for new in [World::new, World::on_store] {
                let world = new(true, true, Ending::Stop);
                std::thread::scope(|scope| {
                    let Some(zombie) = stop(scope, &world, step, 1) else { panic!("{step} is not reached") };
                    let Some(successor) = stop(scope, &world, at, 1) else { return };
                    zombie.end();
                    successor.end();
                    both += 1;
                });
                assert_eq!(world.seen(), expected, "{step}, {at}");
                world.run(&Run::default()).unwrap();
                assert_eq!((world.seen(), world.left_over()), (expected.clone(), vec![]), "{step}, {at}");
            }
        }
    }
    assert!(both >= 60, "{both}");
}

#[test]
fn stopped_at_each_step_of_a_run() {
    let (_, expected) = undisturbed(Ending::Stop);
    let (mut count, mut on_store) = (0, 0);
    for step in STEPS.into_iter().filter(|s| !s.starts_with("trim.between")) {
        for nth in [1, 4] {
            let world = World::new(true, true, Ending::Stop);
            if nth == 1 {
                let world = World::on_store(true, true, Ending::Stop);
                on_store += u32::from(overtaken(&world, step, nth, &expected));
            }
            count += u32::from(overtaken(&world, step, nth, &expected));
        }
    }
    assert!(count > 30 && on_store > 20, "{count} {on_store}");
}

#[test]
fn stopped_within_recovery() {
    let (_, expected) = undisturbed(Ending::Stop);
    for (first, nth) in [("commit.after", 3), ("publish.between", 3), ("trim.before", 1)] {
        for step in STEPS.into_iter().filter(|s| s.starts_with("recovery.") && *s != "recovery.cut") {
            for new in [World::new, World::on_store] {
                let world = new(true, true, Ending::Stop);
                world.run(&Run::killed_at(first, nth)).unwrap_err();
                assert!(overtaken(&world, step, 1, &expected), "{first}, {step}");
            }
        }
    }
}
