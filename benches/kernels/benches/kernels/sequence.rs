//! A vehicle's readings put in order, with all kernels behind it: [`VehicleState::apply`], vehicle by vehicle and epoch by
//! epoch.

use crate::{SECONDS, VEHICLES, of_readings};
use criterion::{BatchSize, BenchmarkGroup, Criterion, measurement::WallTime};
use drivetrain_kernels::batches::{Epoch, epoch, epochs, late};
use drivetrain_kernels::{Setup, readings};
use drivetrain_operators::sequence::{Outcome, VehicleState};
use drivetrain_schemas::reading::IntakeCounts;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs the epochs through fresh vehicles. Every reading must be used, but for `duplicates`.
fn run(setup: &Setup, epochs: Vec<Epoch>, duplicates: i64) -> BTreeMap<Arc<str>, VehicleState> {
    let mut states: BTreeMap<Arc<str>, VehicleState> = BTreeMap::new();
    let mut total = IntakeCounts::default();
    let mut readings = 0;
    for Epoch { batches, vehicles } in epochs {
        let mut outcome = Outcome::default();
        readings += batches.iter().map(|batch| batch.len() as i64).sum::<i64>();
        for (vehicle, mut rows) in vehicles {
            let state = states.entry(vehicle).or_insert_with_key(|id| VehicleState::new(&setup.kernels, id.clone()));
            state.apply(&setup.kernels, &batches, &mut rows, &mut outcome);
        }
        outcome.counts.iter().for_each(|(_, counts)| total += counts);
    }
    assert_eq!((total.used, total.duplicates, total.late), (readings - duplicates, duplicates, 0));
    states
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, setup: &Setup, name: &str, epochs: &[Epoch], duplicates: i64) {
    let readings = epochs.iter().flat_map(|epoch| &epoch.batches).map(|batch| batch.len()).sum();
    group.throughput(of_readings(readings));
    let fresh = || epochs.to_vec();
    group.bench_function(name, |b| {
        b.iter_batched(fresh, |epochs| run(setup, epochs, duplicates), BatchSize::PerIteration)
    });
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let setup = Setup::new();
    let readings = readings(VEHICLES, SECONDS);
    let mut group = criterion.benchmark_group("sequence");
    // A backlog has many readings of a vehicle in an epoch, a job that keeps up has one.
    bench(&mut group, &setup, "in_order_backlog", &epochs(&readings, VEHICLES * 60), 0);
    bench(&mut group, &setup, "in_order_live", &epochs(&readings, VEHICLES), 0);
    // A share of 1 % and of 10 % comes up to 30 s late: within the horizon of 2 min, so each vehicle is wound back.
    bench(&mut group, &setup, "rewind_1_percent", &late(&readings, VEHICLES * 30, 101), 0);
    bench(&mut group, &setup, "rewind_10_percent", &late(&readings, VEHICLES * 30, 11), 0);
    // Clean: each reading twice in its epoch.
    let mut metas = drivetrain_kernels::batches::Metas::default();
    let twice = readings.chunks(VEHICLES * 30).map(|part| epoch(&mut metas, part.iter().chain(part)));
    bench(&mut group, &setup, "duplicates", &twice.collect::<Vec<_>>(), readings.len() as i64);
    group.finish();
}
