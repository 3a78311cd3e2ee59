//! A job killed anywhere and started again has said, in the end, what it would have said undisturbed.
//!
//! A kill is simulated: at the step asked for the thread ends with an error, and everything in memory is dropped without
//! being finished. (The binary is killed for real at the same steps, see `tests/`.)

mod model;
mod refusals;
mod world;
mod zombies;

use super::*;
use crate::failpoint::STEPS;
use model::Ending;
use proptest::prelude::*;
use std::path::PathBuf;
use world::{Run, Seen, World};

fn undisturbed(ending: Ending) -> (Seen, Seen) {
    [false, true]
        .map(|kafka| {
            let world = World::new(kafka, true, ending);
            world.run(&Run::default()).unwrap();
            world.seen()
        })
        .into()
}

#[test]
fn an_undisturbed_run_says_something_and_does_not_depend_on_how_it_is_cut() {
    let (seen, _) = undisturbed(Ending::Stop);
    let text = format!("{seen:?}");
    for part in
        ["readings v", "quality v", "intake s", "late t", "rejects t", "committer/s", "model/3", "driver_scores"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let lazy = World::new(false, false, Ending::Stop);
    lazy.run(&Run { workers: 1, ..Run::default() }).unwrap();
    assert_eq!(lazy.seen(), seen);
}

#[test]
fn a_clean_stop_leaves_nothing_to_repeat() {
    for kafka in [false, true] {
        let mut world = World::new(kafka, false, Ending::Stop);
        world.run(&Run::default()).unwrap();
        assert_eq!(world.checkpoint().unwrap().epoch, world.until);
        let seen = world.seen();
        // Another version may go on from here.
        world.until += 5;
        world.run(&Run { version: "next", ..Run::default() }).unwrap();
        assert_eq!(world.seen().tickets_until(), world.until);
        assert_ne!(world.seen(), seen);
    }
}

/// Files begin their age anew with each start: a job that is killed before they are due must not have more to repeat each
/// time.
#[test]
fn what_was_repeated_once_need_not_be_repeated_again() {
    for kafka in [false, true] {
        let mut undisturbed = World::new(kafka, false, Ending::Stop);
        undisturbed.until = 60;
        // A checkpoint is named by a thread of its own: on a disk that stalls it can come with the last epoch only.
        let repeated = || {
            let mut world = World::new(kafka, false, Ending::Stop);
            world.until = 60;
            assert!(world.run(&Run::killed_at("commit.after", 9)).is_err());
            assert_eq!(world.checkpoint(), None, "nothing was published");
            assert!(world.run(&Run::killed_at("trim.after", 1)).is_err());
            let checkpoint = world.checkpoint().unwrap().epoch;
            assert!(checkpoint >= 2, "{checkpoint}");
            (checkpoint < 30).then_some(world)
        };
        let world = (0..10).find_map(|_| repeated()).expect("a checkpoint soon after the start");
        world.run(&Run::default()).unwrap();
        undisturbed.run(&Run::default()).unwrap();
        assert_eq!(world.seen(), undisturbed.seen());
    }
}

/// Kills a run at a step, lets a second one finish, and compares. False when the step is not reached so often.
fn survives(world: &World, step: &str, nth: u64, expected: &Seen) -> bool {
    let run = Run::killed_at(step, nth);
    let killed = world.run(&run);
    let reached = run.plan.as_ref().unwrap().reached() >= nth;
    assert_eq!(killed.is_err(), reached, "{step}:{nth}: {killed:?}");
    if reached {
        world.run(&Run { workers: 1 + nth as usize % 3, ..Run::default() }).unwrap();
    }
    assert_eq!(world.seen(), *expected, "{step}:{nth}");
    assert_eq!(world.left_over(), Vec::<PathBuf>::new(), "{step}:{nth}");
    reached
}

fn killed_everywhere(kafka: bool, eager: bool, ending: Ending) {
    killed_everywhere_in(kafka, ending, &[1, 2, 5, 9], || World::new(kafka, eager, ending));
}

fn killed_everywhere_in(kafka: bool, ending: Ending, nths: &[u64], world: impl Fn() -> World) {
    let both = undisturbed(ending);
    let expected = if kafka { both.1 } else { both.0 };
    let mut reached = 0;
    for step in STEPS {
        for &nth in nths {
            if !survives(&world(), step, nth, &expected) {
                break;
            }
            reached += 1;
        }
    }
    assert!(reached > 10 * nths.len(), "{reached} kills");
}

#[test]
fn killed_at_each_step_without_kafka() {
    killed_everywhere(false, true, Ending::Stop);
}

#[test]
fn killed_at_each_step_with_a_broker() {
    killed_everywhere(true, true, Ending::Stop);
}

#[test]
fn killed_at_each_step_with_nothing_published_before_the_end() {
    killed_everywhere(false, false, Ending::Stop);
}

#[test]
fn killed_at_each_step_of_a_replay() {
    killed_everywhere(false, true, Ending::End);
}

/// Each start has an empty data directory.
#[test]
fn killed_at_each_step_on_a_store_with_a_broker() {
    killed_everywhere_in(true, Ending::Stop, &[1, 4], || World::on_store(true, true, Ending::Stop));
}

#[test]
fn killed_at_each_step_of_a_replay_on_a_store() {
    killed_everywhere_in(false, Ending::End, &[2], || World::on_store(false, true, Ending::End));
}

#[test]
fn killed_within_recovery_itself() {
    let expected = undisturbed(Ending::Stop);
    for kafka in [false, true] {
        let within = |s: &&str| s.starts_with("recovery.") || s.starts_with("claim.");
        let steps = || STEPS.into_iter().filter(within).filter(|s| !(kafka && *s == "recovery.cut"));
        let expected = if kafka { &expected.1 } else { &expected.0 };
        let firsts = [("commit.after", 7), ("publish.between", 9), ("manifest.between", 3), ("trim.between", 1)];
        for ((first, nth), store) in firsts.into_iter().flat_map(|first| [(first, false), (first, true)]) {
            let new = if store { World::on_store } else { World::new };
            let world = new(kafka, true, Ending::Stop);
            assert!(
                world.run(&Run::killed_at(first, nth)).is_err(),
                "{first} {kafka} {:?}",
                world
                    .records()
                    .iter()
                    .map(|r| (r.committed_epoch, r.history_epoch, r.checkpoint.as_ref().map(|c| c.epoch)))
                    .collect::<Vec<_>>()
            );
            for step in steps().chain(["publish.between"]) {
                let run = Run::killed_at(step, 1);
                let killed = world.run(&run);
                if killed.is_ok() {
                    // Not every run has something to publish.
                    assert_eq!(step, "publish.between", "{first}");
                    assert_eq!(run.plan.unwrap().reached(), 0, "{first}, {step}");
                    break;
                }
            }
            world.run(&Run::default()).unwrap();
            assert_eq!(world.seen(), *expected, "{first}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any number of kills, each start with another number of workers.
    #[test]
    fn killed_again_and_again(
        kafka in any::<bool>(),
        store in any::<bool>(),
        eager in any::<bool>(),
        kills in proptest::collection::vec((0..STEPS.len(), 1u64..6, 1usize..5), 1..5),
    ) {
        let expected = undisturbed(Ending::Stop);
        let expected = if kafka { expected.1 } else { expected.0 };
        let new = if store { World::on_store } else { World::new };
        let world = new(kafka, eager, Ending::Stop);
        for (step, nth, workers) in kills {
            let run = Run { workers, ..Run::killed_at(STEPS[step], nth) };
            if world.run(&run).is_ok() {
                break;
            }
        }
        world.run(&Run::default()).unwrap();
        prop_assert_eq!(world.seen(), expected);
    }
}
