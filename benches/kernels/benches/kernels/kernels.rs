//! Each kernel by itself: a vehicle's samples in their order, one vehicle after the other, from fresh state.

use crate::{SECONDS, VEHICLES, of_readings};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use drivetrain_kernels::batches::{Epoch, epochs, samples};
use drivetrain_kernels::records::{decoder, origin, trips as payloads};
use drivetrain_kernels::{Setup, readings};
use drivetrain_operators::facts::{Facts, TripFact};
use drivetrain_operators::sample::Sample;
use drivetrain_operators::score::{ResolvedPolicy, score};
use drivetrain_operators::{detect, events, payloads as whole_trips, quality, trips, vehicle, windows};
use drivetrain_schemas::decode::{Body, Record};
use drivetrain_schemas::reading::{Accept, Head, IntakeCounts, Interned, Reject, TripPayload};
use std::hint::black_box;
use std::sync::Arc;

/// Gives each vehicle's samples to `step`, with a state that `fresh` makes. Returns the number of facts.
fn over<S>(
    epoch: &Epoch,
    fresh: impl Fn(&Arc<str>) -> S,
    mut step: impl FnMut(&Arc<str>, &mut S, &Sample<'_>, bool, &mut Facts),
) -> usize {
    let mut said = 0;
    for (vehicle, rows) in &epoch.vehicles {
        let (mut state, mut facts) = (fresh(vehicle), Facts::default());
        let mut before = None;
        for sample in samples(epoch, rows) {
            let same_meta = before == Some(Arc::as_ptr(sample.meta));
            before = Some(Arc::as_ptr(sample.meta));
            step(vehicle, &mut state, &sample, same_meta, &mut facts);
        }
        said += facts.windows.len() + facts.events.len() + facts.trips.len() + facts.anomalies.len();
        black_box(state);
    }
    said
}

/// `some`: whether the fleet's readings make the kernel say anything.
fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, some: bool, mut run: impl FnMut() -> usize) {
    assert_eq!(run() > 0, some, "{name}");
    group.bench_function(name, |b| b.iter(&mut run));
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let setup = Setup::new();
    let cfg = &setup.kernels;
    let epoch = epochs(&readings(VEHICLES, SECONDS), usize::MAX).swap_remove(0);
    let mut group = criterion.benchmark_group("kernel");
    group.throughput(of_readings(VEHICLES * SECONDS));
    if let Some(params) = &cfg.windows {
        let fresh = |_: &Arc<str>| windows::State::new(params);
        bench(&mut group, "windows", true, || {
            over(&epoch, fresh, |id, s, sample, _, facts| windows::step(params, &cfg.time, id, s, sample, facts))
        });
    }
    bench(&mut group, "trips", true, || {
        let step = |id: &Arc<str>, s: &mut trips::State, sample: &Sample<'_>, same, facts: &mut Facts| {
            trips::step(&cfg.trip, id, s, sample, same, facts);
        };
        over(&epoch, |_| trips::State::default(), step)
    });
    bench(&mut group, "events", true, || {
        let outside = trips::State::default();
        over(
            &epoch,
            |_| events::State::new(cfg),
            |id, s, sample, _, facts| {
                events::step(cfg, id, s, sample, &outside, facts);
            },
        )
    });
    detectors(&mut group, &setup, &epoch);
    quality_of(&mut group, &setup, &epoch);
    bench(&mut group, "all", true, || {
        over(
            &epoch,
            |id| vehicle::State::new(cfg, id.clone()),
            |_, s, sample, _, facts| {
                vehicle::step(cfg, s, sample, facts);
            },
        )
    });
    group.finish();
    whole(criterion, &setup);
    scores(criterion, &setup, &epoch);
}

/// A healthy fleet: what is measured is that nothing is wrong.
fn detectors(group: &mut BenchmarkGroup<'_, WallTime>, setup: &Setup, epoch: &Epoch) {
    let cfg = &setup.kernels;
    for params in &cfg.range {
        bench(group, "detect_range", false, || {
            over(
                epoch,
                |_| detect::range::State::default(),
                |id, s, sample, _, facts| {
                    detect::range::step(params, id, s, sample, facts);
                },
            )
        });
    }
    for params in &cfg.zscore {
        bench(group, "detect_zscore", false, || {
            over(
                epoch,
                |_| detect::zscore::State::default(),
                |id, s, sample, _, facts| {
                    detect::zscore::step(params, id, s, sample, facts);
                },
            )
        });
    }
    for params in &cfg.stuck {
        bench(group, "detect_stuck", false, || {
            over(
                epoch,
                |_| detect::stuck::State::default(),
                |id, s, sample, _, facts| {
                    let speed = Some((sample.at, 50_000_000));
                    detect::stuck::step(params, cfg.trip.max_gap, id, s, speed, sample, facts);
                },
            )
        });
    }
    bench(group, "detect_all", false, || {
        over(
            epoch,
            |_| detect::State::new(cfg),
            |id, s, sample, _, facts| {
                if let Some(s) = s {
                    detect::step(cfg, id, s, sample, facts);
                }
            },
        )
    });
}

/// Counts for the table `quality`.
fn quality_of(group: &mut BenchmarkGroup<'_, WallTime>, setup: &Setup, epoch: &Epoch) {
    let Some(params) = &setup.kernels.quality else { return };
    bench(group, "quality", false, || {
        over(
            epoch,
            |_| quality::State::new(params),
            |_, s, sample, _, _| {
                s.arrived(sample.at, sample.values, &sample.meta.texts);
            },
        )
    });
}

#[derive(Default)]
struct Keep(Vec<TripPayload>);

impl Accept for Keep {
    fn reading(&mut self, _head: Head, _interned: Interned<'_>, _values: &[i64], _invalid: &[u16]) {}

    fn trip(&mut self, trip: TripPayload) {
        self.0.push(trip);
    }

    fn reject(&mut self, reject: Reject) {
        panic!("{reject:?}");
    }
}

/// Trips that come as one record.
fn whole(criterion: &mut Criterion, setup: &Setup) {
    let records = payloads(setup, &readings(VEHICLES, SECONDS), VEHICLES, 60);
    let (mut decoder, mut kept, origin) = (decoder(setup, r#"{"layout":"trip"}"#), Keep::default(), origin());
    for record in &records {
        let body = Body::Json(record.as_bytes());
        let record = Record { origin: &origin, position: 0, timestamp: None, key: None, headers: &[], body };
        decoder.decode(&record, &mut IntakeCounts::default(), &mut kept);
    }
    let trips = kept.0;
    let mut group = criterion.benchmark_group("trip_payload");
    group.throughput(of_readings(trips.iter().map(|trip| trip.samples.len()).sum()));
    let run = |trips| {
        let mut state = whole_trips::State::default();
        let said = whole_trips::step(&setup.kernels, &mut state, trips);
        assert!(!said.facts.trips.is_empty());
        (state, said)
    };
    group.bench_function("step", |b| b.iter_batched(|| trips.clone(), run, BatchSize::PerIteration));
    group.finish();
}

/// The score of a closed trip by the default policy.
fn scores(criterion: &mut Criterion, setup: &Setup, epoch: &Epoch) {
    let policy = ResolvedPolicy::new(&setup.policy, &setup.catalogue, &setup.kernels.trip.harsh).unwrap();
    let facts = closed_trips(setup, epoch);
    let mut group = criterion.benchmark_group("score");
    group.throughput(Throughput::Elements(facts.len() as u64));
    group.bench_function("trip", |b| b.iter(|| facts.iter().map(|trip| score(&policy, trip).score).sum::<i64>()));
    group.finish();
}

pub(crate) fn closed_trips(setup: &Setup, epoch: &Epoch) -> Vec<TripFact> {
    let mut closed = Vec::new();
    for (vehicle, rows) in &epoch.vehicles {
        let (mut state, mut facts) = (trips::State::default(), Facts::default());
        for sample in samples(epoch, rows) {
            trips::step(&setup.kernels.trip, vehicle, &mut state, &sample, false, &mut facts);
        }
        closed.extend(facts.trips.into_iter().map(|(trip, _)| trip).filter(|trip| !trip.open));
    }
    assert!(!closed.is_empty());
    closed
}
