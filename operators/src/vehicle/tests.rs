//! Each kernel against a reference that recomputes from the list of samples.

use super::*;
use crate::facts::{EventFact, Resolution, Stats, WindowFact};
use crate::sequence::OwnedReading;
use crate::testing::{G, IGNITION, SECOND, SPEED, Setup, TEMPERATURE, consolidated, reading};
use drivetrain_schemas::policy::EventKind;
use drivetrain_schemas::reading::{Origin, TripSample};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn sorted(seconds: i64) -> impl Strategy<Value = Vec<OwnedReading>> {
    prop::collection::vec(reading(seconds), 1..150).prop_map(|mut readings| {
        readings.sort_by(|a, b| (a.at, &a.values).cmp(&(b.at, &b.values)));
        readings
    })
}

fn sample<'a>(cfg: &KernelConfig, r: &'a OwnedReading) -> Sample<'a> {
    Sample { at: r.at, interval: cfg.interval(&r.origin.source), meta: &r.meta, values: &r.values }
}

/// Everything said by the end of the input.
fn run(cfg: &KernelConfig, readings: &[OwnedReading]) -> Facts {
    let mut state = State::new(cfg, "v".into());
    let mut facts = Facts::default();
    readings.iter().for_each(|r| step(cfg, &mut state, &sample(cfg, r), &mut facts));
    close(cfg, &state, i64::MAX, &mut facts);
    consolidated(&facts)
}

/// The ordinal of each reading's trip: with ids only their change cuts; without, a gap.
fn trips_of(readings: &[OwnedReading]) -> Vec<usize> {
    let (mut ordinal, mut id, mut at) = (0, None, i64::MIN);
    let ordinal_of = |r: &OwnedReading| {
        let own = r.meta.trip.clone();
        let gap = r.at.saturating_sub(at) > 60 * SECOND;
        let cut = match (&id, &own) {
            (held, Some(own)) => held.as_ref() != Some(own),
            (None, None) => gap,
            (Some(_), None) => false,
        };
        if cut || ordinal == 0 {
            ordinal += 1;
            id = own;
        }
        at = r.at;
        ordinal
    };
    readings.iter().map(ordinal_of).collect()
}

fn windows(cfg: &KernelConfig, readings: &[OwnedReading]) -> Vec<(WindowFact, isize)> {
    let mut groups: BTreeMap<(u16, Resolution, i64), Vec<i64>> = BTreeMap::new();
    for signal in [G, SPEED, TEMPERATURE] {
        for r in readings.iter().filter(|r| r.values[signal] != NULL) {
            for resolution in [Resolution::Minute, Resolution::Hour, Resolution::Day] {
                let start = r.at.div_euclid(resolution.micros()) * resolution.micros();
                groups.entry((signal as u16, resolution, start)).or_default().push(r.values[signal]);
            }
        }
    }
    assert_eq!(cfg.windows.as_ref().unwrap().signals, [G as u16, SPEED as u16, TEMPERATURE as u16]);
    let fact = |((signal, resolution, start), mut values): ((u16, Resolution, i64), Vec<i64>)| {
        let stats = Stats {
            count: values.len() as i64,
            sum: values.iter().map(|v| i128::from(*v)).sum(),
            squares: values.iter().map(|v| i128::from(*v).pow(2)).sum(),
            min: *values.iter().min().unwrap(),
            max: *values.iter().max().unwrap(),
            first: values[0],
            last: *values.last().unwrap(),
        };
        values.sort_unstable();
        let rank = |p: f64| values[(p * values.len() as f64).ceil() as usize - 1];
        let quantiles = (signal as usize == TEMPERATURE).then(|| [rank(0.5), rank(0.95), rank(0.99)]);
        (WindowFact { vehicle: "v".into(), signal, resolution, start, stats, quantiles }, 1)
    };
    let mut facts: Vec<_> = groups.into_iter().map(fact).collect();
    facts.sort();
    facts
}

/// (kind, start, end, samples, peak): known values that pass, next to each other, of one trip, without a gap.
fn excursions(cfg: &KernelConfig, readings: &[OwnedReading]) -> Vec<(EventKind, i64, i64, i64, i64)> {
    let trips = trips_of(readings);
    let known: Vec<_> = readings.iter().zip(&trips).filter(|(r, _)| r.values[G] != NULL).collect();
    let mut found: Vec<(EventKind, i64, i64, i64, i64)> = Vec::new();
    for (kind, sign) in [(EventKind::HarshBraking, -1), (EventKind::RapidAcceleration, 1)] {
        let passes = |r: &OwnedReading| r.values[G] * sign > 400_000;
        for (i, (r, trip)) in known.iter().enumerate().filter(|(_, (r, _))| passes(r)) {
            let joined = i > 0 && {
                let (before, before_trip) = &known[i - 1];
                let gap = (3 * cfg.interval(&r.origin.source)).max(5 * SECOND);
                passes(before) && before_trip == trip && r.at - before.at <= gap
            };
            match found.last_mut() {
                Some(last) if joined => {
                    (last.2, last.3) = (r.at, last.3 + 1);
                    last.4 = if r.values[G].abs() > last.4.abs() { r.values[G] } else { last.4 };
                }
                _ => found.push((kind, r.at, r.at, 1, r.values[G])),
            }
        }
    }
    found.sort();
    found
}

fn check_trip(cfg: &KernelConfig, fact: &TripFact, readings: &[&OwnedReading]) {
    let (first, last) = (readings[0], readings[readings.len() - 1]);
    assert!(!fact.open);
    assert_eq!((fact.started_at, fact.ended_at, fact.samples), (first.at, last.at, readings.len() as i64));
    assert_eq!(fact.duration, last.at - first.at + cfg.interval(&last.origin.source));
    assert_eq!(fact.fleet, readings.iter().find_map(|r| r.meta.fleet.clone()));
    let mut drivers: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    readings.iter().filter_map(|r| r.meta.driver.clone()).for_each(|d| *drivers.entry(d).or_insert(0) += 1);
    let most = drivers.values().max().copied();
    assert_eq!(fact.driver, drivers.iter().find(|(_, n)| Some(**n) == most).map(|(d, _)| d.clone()));
    let speeds: Vec<_> =
        readings.iter().filter(|r| r.values[SPEED] != NULL).map(|r| (r.at, r.values[SPEED] * 10_000)).collect();
    assert_eq!(fact.max_speed, speeds.iter().map(|s| s.1).max());
    let steps = || speeds.windows(2).filter(|s| s[1].0 - s[0].0 <= 60 * SECOND);
    let doubled: i128 = steps().map(|s| i128::from(s[0].1 + s[1].1) * i128::from(s[1].0 - s[0].0)).sum();
    assert_eq!(fact.distance, (!speeds.is_empty()).then_some(doubled / 2));
    let speeding: i64 = steps().filter(|s| s[0].1 > 50_000_000).map(|s| s[1].0 - s[0].0).sum();
    assert_eq!(fact.speeding, (!speeds.is_empty()).then_some(speeding));
    let harsh = readings.iter().filter(|r| r.values[G] != NULL && r.values[G].abs() >= 200_000).count();
    assert_eq!(fact.harsh.iter().map(|h| h.count as usize).sum::<usize>(), harsh);
    let braking = readings.iter().filter(|r| r.values[G] != NULL && r.values[G] < -400_000).count();
    assert_eq!(fact.harsh.iter().filter(|h| h.bin < -800).map(|h| h.count as usize).sum::<usize>(), braking);
}

proptest! {
    #[test]
    fn windows_are_recomputed(readings in sorted(8000)) {
        let cfg = Setup::default().build();
        prop_assert_eq!(run(&cfg, &readings).windows, windows(&cfg, &readings));
    }

    #[test]
    fn events_are_recomputed(readings in sorted(200)) {
        let cfg = Setup::default().build();
        let tuple = |e: &EventFact| (e.kind, e.started_at, e.ended_at, e.samples, e.peak);
        let mut said: Vec<_> = run(&cfg, &readings).events.iter().map(|(e, _)| tuple(e)).collect();
        said.sort();
        prop_assert_eq!(said, excursions(&cfg, &readings));
    }

    #[test]
    fn trips_are_recomputed(readings in sorted(600)) {
        let cfg = Setup::default().build();
        let mut facts: Vec<_> = run(&cfg, &readings).trips;
        prop_assert!(facts.iter().all(|(_, diff)| *diff == 1));
        let mut ids: Vec<_> = facts.iter().map(|(f, _)| f.trip_id.clone()).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), facts.len());
        facts.sort_by_key(|(f, _)| (f.started_at, f.ended_at));
        let mut groups: BTreeMap<usize, Vec<&OwnedReading>> = BTreeMap::new();
        readings.iter().zip(trips_of(&readings)).for_each(|(r, n)| groups.entry(n).or_default().push(r));
        prop_assert_eq!(facts.len(), groups.len());
        // Several trips may begin and end at one instant: these are told apart by their samples.
        let key = |start: i64, end: i64, n: i64| (start, end, n);
        let mut expected: Vec<_> = groups.into_values().collect();
        expected.sort_by_key(|g| key(g[0].at, g[g.len() - 1].at, g.len() as i64));
        facts.sort_by_key(|(f, _)| key(f.started_at, f.ended_at, f.samples));
        let unique = expected.windows(2).all(|p| p[0][0].at != p[1][0].at);
        for ((fact, _), group) in facts.iter().zip(&expected).filter(|_| unique) {
            check_trip(&cfg, fact, group);
        }
    }
}

fn plain(at: i64, values: [i64; 4], trip: Option<&str>) -> OwnedReading {
    let meta = Meta {
        vehicle: "v".into(),
        texts: vec![],
        driver: None,
        trip: trip.map(Arc::from),
        fleet: None,
        quality: None,
        tags: None,
    };
    let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
    OwnedReading { at: at * SECOND, values: values.to_vec(), meta: Arc::new(meta), origin, position: 0, element: 0 }
}

#[test]
fn trips_are_named_by_vehicle_id_and_day() {
    let cfg = Setup::default().build();
    let quiet = [NULL; 4];
    let readings = [
        plain(0, quiet, Some("a")),
        plain(1, quiet, Some("b")),
        plain(2, quiet, Some("a")),
        plain(3, quiet, None),
        plain(86_400, quiet, Some("b")),
        plain(86_401, quiet, Some("a")),
    ];
    let ids: Vec<_> = run(&cfg, &readings).trips.iter().map(|(t, _)| t.trip_id.to_string()).collect();
    let expected = ["v:a:1970-01-01", "v:a:1970-01-01:2", "v:a:1970-01-02", "v:b:1970-01-01", "v:b:1970-01-02"];
    assert_eq!(ids, expected);
}

#[test]
fn ignition_and_end_marker_cut() {
    let on = |at, ignition| plain(at, [NULL, ignition, NULL, NULL], None);
    let mut setup = Setup::default();
    setup.trip.ignition = Some("ignition".into());
    let readings = [on(0, 0), on(1, 1), on(500, NULL), on(501, 0), on(502, 0), on(503, 1)];
    let spans = |setup: &Setup, readings: &[OwnedReading]| -> Vec<_> {
        let facts = run(&setup.build(), readings).trips;
        facts.iter().map(|(t, _)| (t.started_at / SECOND, t.ended_at / SECOND, t.samples)).collect()
    };
    assert_eq!(IGNITION, 1);
    assert_eq!(spans(&setup, &readings), [(1, 500, 2), (503, 503, 1)]);
    let mut setup = Setup::default();
    setup.trip.end_marker = Some("ignition".into());
    assert_eq!(spans(&setup, &[on(0, 0), on(1, 1), on(2, 1), on(3, NULL)]), [(0, 1, 2), (3, 3, 1)]);
    // Without either, a gap of more than a minute.
    assert_eq!(spans(&Setup::default(), &[on(0, 0), on(60, 0), on(121, 0)]), [(0, 60, 2), (121, 121, 1)]);
}

#[test]
fn an_open_trip_speaks_at_its_start_and_at_harsh_samples() {
    let cfg = Setup::default().build();
    let mut state = State::new(&cfg, "v".into());
    let mut said = Vec::new();
    for (i, g) in [100_000, 300_000, -500_000, 100_000, 400_000, 0].into_iter().enumerate() {
        let mut facts = Facts::default();
        step(&cfg, &mut state, &sample(&cfg, &plain(i as i64, [g, NULL, NULL, NULL], None)), &mut facts);
        said.push(facts.trips.iter().map(|(t, diff)| (t.open, t.samples, *diff)).collect::<Vec<_>>());
    }
    let again = |old, new| vec![(true, old, -1), (true, new, 1)];
    assert_eq!(said, [vec![(true, 1, 1)], vec![], again(1, 3), vec![], again(3, 5), vec![]]);
}

#[test]
fn a_payload_is_a_trip() {
    let mut setup = Setup::default();
    setup.trip.id_unique = true;
    let cfg = setup.build();
    let at = |at: i64, g: i64| TripSample { at: at * SECOND, values: vec![g, NULL, 3600, NULL], texts: vec![] };
    let payload = TripPayload {
        trip_id: "t1".into(),
        record_time: 0,
        vehicle: "v1".into(),
        driver: Some("d1".into()),
        fleet: None,
        quality: None,
        tags: None,
        samples: vec![at(0, 100_000), at(1, -500_000), at(2, -400_000)],
        origin: Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 }),
        position: 0,
        sample_interval: SECOND,
    };
    let (trip, events) = trip_payload_facts(&cfg, &payload);
    assert_eq!((&*trip.trip_id, trip.driver.as_deref(), trip.duration), ("t1", Some("d1"), 3 * SECOND));
    // 36 km/h for 2 s are 20 m.
    assert_eq!(trip.distance.map(|d| d / 3_600_000_000_000), Some(20));
    assert_eq!(trip.harsh.iter().map(|h| (h.bin, h.speed)).collect::<Vec<_>>(), [(-1000, 36), (-800, 36)]);
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].samples, events[0].peak), (EventKind::HarshBraking, 1, -500_000));
    assert_eq!((events[0].trip_id.as_deref(), events[0].driver.as_deref()), (Some("t1"), Some("d1")));
}
