//! The sequence against a slow reference: all readings ever accepted, sorted, without duplicates, run from scratch.

use super::*;
use crate::facts::QualityFact;
use crate::score::trips::{Changes, Trips};
use crate::testing::{BASE, SECOND, Setup, add_rows, consolidated, extend, reading};
use drivetrain_schemas::reading::{Head, IntakeCounts, Meta, NULL, Origin};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Key = (i64, Vec<i64>, Vec<(u16, Arc<str>)>);

/// Of duplicates the one with the smallest of these stays.
fn preferred(r: &OwnedReading) -> (&Meta, &Origin, i64, u32) {
    (&r.meta, &r.origin, r.position, r.element)
}

fn key(r: &OwnedReading) -> Key {
    (r.at, r.values.clone(), r.meta.texts.clone())
}

/// Of some readings the numbers that aren't known were unusable.
fn invalid(r: &OwnedReading) -> Vec<u16> {
    (0..4u16).filter(|s| r.position % 3 == 0 && r.values[usize::from(*s)] == NULL).collect()
}

/// One batch for each run of readings of an origin, and where each reading stands.
fn batches(readings: &[OwnedReading]) -> (Vec<ReadingBatch>, Vec<Incoming>) {
    let mut batches: Vec<ReadingBatch> = Vec::new();
    let mut incoming = Vec::new();
    for r in readings {
        if batches.last().is_none_or(|b| b.origin != r.origin) {
            batches.push(ReadingBatch::new(r.origin.clone(), r.values.len()));
        }
        let (at, position, element) = (r.at, r.position, r.element);
        let place = batches.len() - 1;
        batches[place].push(Head { at, position, record_time: NULL, meta: 0, element }, &r.meta, &r.values);
        batches[place].mark_invalid(&invalid(r));
        incoming.push(Incoming { batch: place as u32, row: batches[place].len() as u32 - 1 });
    }
    (batches, incoming)
}

/// What has been said so far, and what ought to have been.
struct Bench {
    cfg: KernelConfig,
    state: VehicleState,
    said: Facts,
    readings: BTreeMap<(i64, Vec<i64>, Arc<Meta>), i64>,
    counts: BTreeMap<Arc<Origin>, IntakeCounts>,
    rows: i64,
    late: usize,
    accepted: BTreeMap<Key, OwnedReading>,
    level: Option<i64>,
    /// All that came in time, and the late with the newest time of when they came.
    timely: Vec<OwnedReading>,
    too_late: Vec<(i64, OwnedReading)>,
    quality: BTreeMap<QualityFact, isize>,
    /// The trips that are held as they are sealed as early as may be, and how often each is.
    trips: Trips,
    held: BTreeMap<Vec<u8>, i64>,
}

impl Bench {
    fn new(cfg: KernelConfig) -> Self {
        Bench {
            trips: Trips::new(true, Some(cfg.time.hot_horizon)),
            held: BTreeMap::new(),
            state: VehicleState::new(&cfg, "v".into()),
            cfg,
            said: Facts::default(),
            readings: BTreeMap::new(),
            counts: BTreeMap::new(),
            rows: 0,
            late: 0,
            accepted: BTreeMap::new(),
            level: None,
            timely: Vec::new(),
            too_late: Vec::new(),
            quality: BTreeMap::new(),
        }
    }

    fn epoch(&mut self, readings: &[OwnedReading]) {
        let floor = self.state.floor;
        let before = self.accepted.clone();
        let (mut expected_late, mut seen) = (0, 0);
        for r in readings {
            seen += 1;
            if r.at < floor {
                expected_late += 1;
                self.too_late.push((self.state.newest, r.clone()));
                continue;
            }
            self.timely.push(r.clone());
            let held = self.accepted.entry(key(r)).or_insert_with(|| r.clone());
            if preferred(r) < preferred(held) {
                *held = r.clone();
            }
        }
        let (batches, mut incoming) = batches(readings);
        let mut out = Outcome::default();
        self.state.apply(&self.cfg, &batches, &mut incoming, &mut out);
        if self.accepted != before {
            self.level = None;
        }
        assert_eq!(out.late.len(), expected_late);
        self.rows += seen;
        self.take(out, batches);
    }

    fn silence(&mut self, watermark: i64) {
        let mut out = Outcome::default();
        let due = self.state.deadline().is_some_and(|d| d <= watermark);
        self.state.silence(&self.cfg, watermark, &mut out);
        assert!(due || out.facts == Facts::default(), "said something though nothing was due: {:?}", out.facts);
        assert!(due || out.quality.is_empty(), "said something though nothing was due: {:?}", out.quality);
        assert!(self.state.deadline().is_none_or(|d| d > watermark));
        if self.state.newest > i64::MIN {
            self.level = Some(self.level.map_or(watermark, |l| l.max(watermark)));
        }
        self.take(out, Vec::new());
    }

    fn take(&mut self, out: Outcome, batches: Vec<ReadingBatch>) {
        for (batch, diff) in out.readings(batches) {
            for i in 0..batch.len() {
                let row = (batch.heads[i].at, batch.row(i).to_vec(), batch.meta(i).clone());
                *self.readings.entry(row).or_insert(0) += diff;
            }
        }
        self.late += out.late.len();
        for (origin, counts) in out.counts {
            *self.counts.entry(origin).or_default() += &counts;
        }
        for (fact, diff) in out.quality {
            *self.quality.entry(fact).or_insert(0) += diff;
        }
        self.quality.retain(|_, diff| *diff != 0);
        let changes = Changes { facts: out.facts.trips.clone(), ..Changes::default() };
        let _ = self.trips.step(changes, &mut |_, _| {});
        add_rows(&mut self.held, &self.trips.keep());
        assert!(self.held.values().all(|count| *count >= 0), "a sealed trip was taken back");
        extend(&mut self.said, out.facts);
        self.said = consolidated(&self.said);
    }

    fn check(&self) {
        let mut kernel = vehicle::State::new(&self.cfg, "v".into());
        let mut facts = Facts::default();
        for r in self.accepted.values() {
            let interval = self.cfg.interval(&r.origin.source);
            let sample = Sample { at: r.at, interval, meta: &r.meta, values: &r.values };
            vehicle::step(&self.cfg, &mut kernel, &sample, &mut facts);
        }
        if let Some(level) = self.level {
            vehicle::close(&self.cfg, &kernel, level, &mut facts);
        }
        assert_eq!(self.said, consolidated(&facts));
        assert_eq!(vehicle::fact(&self.state.kernel), vehicle::fact(&kernel));
        assert_eq!(self.quality, self.quality_by_hand().into_iter().map(|fact| (fact, 1)).collect());
        let held = self.accepted.values().map(|r| ((r.at, r.values.clone(), r.meta.clone()), 1)).collect();
        let said: BTreeMap<_, _> = self.readings.clone().into_iter().filter(|(_, diff)| *diff != 0).collect();
        assert_eq!(said, held);
        let sum = self.counts.values().fold(IntakeCounts::default(), |mut a, b| {
            a += b;
            a
        });
        assert_eq!(sum.used, self.accepted.len() as i64);
        assert_eq!(sum.late, self.late as i64);
        assert_eq!(sum.used + sum.duplicates + sum.late, self.rows);
        for (origin, counts) in &self.counts {
            assert_eq!(counts.used, self.accepted.values().filter(|r| r.origin == *origin).count() as i64);
        }
    }
}

impl Bench {
    /// The hours that the floor or silence has closed, counted from all that came.
    fn quality_by_hand(&self) -> BTreeSet<QualityFact> {
        const HOUR: i64 = 3_600 * SECOND;
        let hour = |at: i64| at.div_euclid(HOUR) * HOUR;
        let silent = self.level.map_or(i64::MIN, |level| level.saturating_sub(self.cfg.time.patience));
        let upto = if self.level == Some(i64::MAX) { i64::MAX } else { silent.max(self.state.floor) };
        let hours: BTreeSet<i64> =
            self.timely.iter().map(|r| hour(r.at)).filter(|start| start + HOUR <= upto).collect();
        let mut facts = BTreeSet::new();
        for (start, signal) in hours.into_iter().flat_map(|start| (0..4u16).map(move |signal| (start, signal))) {
            let knows = |r: &OwnedReading| r.values[usize::from(signal)] != NULL;
            let inside: Vec<&OwnedReading> = self.timely.iter().filter(|r| hour(r.at) == start).collect();
            let arrived = inside.iter().filter(|r| knows(r)).count() as i64;
            let received = inside.iter().filter(|r| knows(r)).map(|r| key(r)).collect::<BTreeSet<_>>().len() as i64;
            let invalid = inside.iter().filter(|r| invalid(r).contains(&signal)).count() as i64;
            let late = self.too_late.iter().filter(|(newest, r)| hour(*newest) == start && knows(r)).count() as i64;
            let (first, last) = (inside.iter().map(|r| r.at).min(), inside.iter().map(|r| r.at).max());
            let span = last.zip(first).map_or(0, |(last, first)| last - first);
            let expected = (signal == 2).then_some(span / (2 * SECOND) + 1);
            let spoke = |r: &&OwnedReading| knows(r) || invalid_of(r, signal);
            let spoken = self.timely.iter().filter(spoke).any(|r| hour(r.at) <= start);
            if received + invalid + late > 0 || (spoken && expected.is_some()) {
                let (vehicle, duplicates) = ("v".into(), arrived - received);
                facts.insert(QualityFact { vehicle, signal, start, expected, received, invalid, duplicates, late });
            }
        }
        facts
    }
}

fn invalid_of(r: &OwnedReading, signal: u16) -> bool {
    invalid(r).contains(&signal)
}

#[derive(Clone, Debug)]
enum Step {
    Epoch(usize),
    Silence(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1usize..12).prop_map(Step::Epoch),
        1 => (0i64..700).prop_map(|s| Step::Silence(BASE + s * SECOND)),
    ];
    prop::collection::vec(step, 1..24)
}

fn run(cfg: KernelConfig, readings: &[OwnedReading], steps: &[Step], horizon_only: bool) {
    let mut bench = Bench::new(cfg);
    let mut rest = readings;
    for step in steps {
        match step {
            Step::Epoch(n) => {
                let (epoch, more) = rest.split_at((*n).min(rest.len()));
                bench.epoch(epoch);
                rest = more;
            }
            Step::Silence(watermark) => bench.silence(*watermark),
        }
        bench.check();
        if horizon_only && bench.state.newest > i64::MIN {
            assert_eq!(bench.state.floor, bench.state.newest - bench.cfg.time.hot_horizon);
        }
    }
    bench.epoch(rest);
    bench.check();
    bench.silence(i64::MAX);
    bench.check();
}

/// Mostly forwards in time, displaced by up to `jitter` half seconds.
fn nearly_sorted(mut readings: Vec<OwnedReading>, jitter: &[i64]) -> Vec<OwnedReading> {
    let mut keyed: Vec<_> = readings.drain(..).zip(jitter.iter().cycle()).collect();
    keyed.sort_by_key(|(r, j)| r.at + **j * SECOND / 2);
    keyed.into_iter().map(|(r, _)| r).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Any order: whatever is not late is as if it had come sorted.
    #[test]
    fn any_order(readings in prop::collection::vec(reading(300), 1..120), steps in steps()) {
        run(Setup::default().build(), &readings, &steps, true);
    }

    /// Disorder within the horizon, over many segments, with duplicates sent again.
    #[test]
    fn forwards(
        readings in prop::collection::vec(reading(600), 1..200),
        jitter in prop::collection::vec(-60i64..60, 1..40),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        steps in steps(),
    ) {
        let mut readings = nearly_sorted(readings, &jitter);
        for index in again {
            let r = readings[index.index(readings.len())].clone();
            readings.insert(index.index(readings.len()), r);
        }
        run(Setup::default().build(), &readings, &steps, true);
    }

    /// The bound on readings drops the log earlier; what is then late is judged by epochs.
    #[test]
    fn bounded(readings in prop::collection::vec(reading(120), 1..200), jitter in prop::collection::vec(-20i64..20, 1..40), steps in steps()) {
        let mut setup = Setup::default();
        setup.time.hot_readings = 16;
        run(setup.build(), &nearly_sorted(readings, &jitter), &steps, false);
    }

    /// Within the horizon the batching leaves no trace: all at once, or one by one in another order.
    #[test]
    fn batching_leaves_no_trace(readings in prop::collection::vec(reading(90), 1..60)) {
        let mut at_once = Bench::new(Setup::default().build());
        at_once.epoch(&readings);
        let mut one_by_one = Bench::new(Setup::default().build());
        readings.iter().rev().for_each(|r| one_by_one.epoch(std::slice::from_ref(r)));
        prop_assert_eq!(&at_once.said, &one_by_one.said);
        at_once.silence(i64::MAX);
        one_by_one.silence(i64::MAX);
        prop_assert_eq!(&at_once.quality, &one_by_one.quality);
        prop_assert_eq!(at_once.state.kernel.values(), one_by_one.state.kernel.values());
    }
}

/// A trip each 70 s; [`Bench::take`] looks at what is sealed.
#[test]
fn trips_beyond_the_horizon_are_sealed_and_the_last_one_before_it_can_still_grow() {
    let meta = |trip: i64| Meta {
        vehicle: "v".into(),
        texts: vec![],
        driver: None,
        trip: Some(trip.to_string().into()),
        fleet: None,
        quality: None,
        tags: None,
    };
    let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
    let reading = |trip: i64, at: i64| OwnedReading {
        at: BASE + at * SECOND,
        values: vec![NULL, 1, 2_000, NULL],
        meta: Arc::new(meta(trip)),
        origin: origin.clone(),
        position: at,
        element: 0,
    };
    let mut bench = Bench::new(Setup::default().build());
    for trip in 0..10 {
        bench.epoch(&[reading(trip, trip * 70), reading(trip, trip * 70 + 20)]);
        bench.check();
    }
    let held = |bench: &Bench| bench.held.values().filter(|count| **count == 1).count();
    // Two trips within the horizon, one before it, and the open one.
    assert_eq!(held(&bench), 4);
    // The newest reading is of 650; the one at 551 lengthens the trip that ended at 510, and the next one began at 560.
    bench.epoch(&[reading(7, 551)]);
    bench.check();
    bench.silence(i64::MAX);
    bench.check();
    assert_eq!(held(&bench), 4);
}

#[test]
fn a_late_reading_is_kept_whole() {
    let cfg = Setup::default().build();
    let mut state = VehicleState::new(&cfg, "v".into());
    let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 3 });
    let meta = Arc::new(Meta {
        vehicle: "v\"1".into(),
        texts: vec![],
        driver: Some("d".into()),
        trip: None,
        fleet: None,
        quality: None,
        tags: Some("{\"x\":1}".into()),
    });
    let mut out = Outcome::default();
    for (at, speed) in [(1_000 * SECOND, 100), (10 * SECOND, 1234)] {
        let mut batch = ReadingBatch::new(origin.clone(), 4);
        let head = Head { at, position: at / SECOND, record_time: 7, meta: 0, element: 0 };
        batch.push(head, &meta, &[-500_000, 1, speed, NULL]);
        state.apply(&cfg, &[batch], &mut vec![Incoming { batch: 0, row: 0 }], &mut out);
    }
    let late = &out.late[0];
    assert_eq!((late.position, late.record_time, &*late.reason), (10, 7, "late"));
    let text = String::from_utf8(late.payload.clone().unwrap()).unwrap();
    assert_eq!(
        text,
        "{\"vehicle_id\":\"v\\\"1\",\"at\":\"1970-01-01T00:00:10Z\",\"driver_id\":\"d\",\
         \"g_force_long\":-0.500000,\"ignition\":true,\"speed_kmh\":12.34,\"tags\":{\"x\":1}}"
    );
}

#[test]
fn the_log_is_compact_and_bounded() {
    let cfg = Setup::default().build();
    let mut state = VehicleState::new(&cfg, "v".into());
    let meta =
        Meta { vehicle: "v".into(), texts: vec![], driver: None, trip: None, fleet: None, quality: None, tags: None };
    let origin = Origin { source: "s".into(), name: "t".into(), partition: 0 };
    let (meta, origin) = (Arc::new(meta), Arc::new(origin));
    for i in 0..5_000 {
        let mut batch = ReadingBatch::new(origin.clone(), 4);
        let head = Head { at: i * SECOND, position: i, record_time: NULL, meta: 0, element: 0 };
        batch.push(head, &meta, &[(i % 7) * 10_000, 1, 5_000 + i % 13, 200 + i % 3]);
        state.apply(&cfg, &[batch], &mut vec![Incoming { batch: 0, row: 0 }], &mut Outcome::default());
    }
    // Between one and two horizons of 100 readings, of at most 16 bytes, and a quarter of slack.
    let kept: usize = state.segments.iter().map(|s| s.count).sum();
    assert!((100..=201).contains(&kept), "{kept} readings");
    assert!(state.log_bytes() < 201 * 20, "{} bytes", state.log_bytes());
}
