//! The counts against a slow reference: everything that ever came, looked through anew for each hour and signal.

use super::*;
use crate::testing::{SECOND, catalogue};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HORIZON: i64 = 1800 * SECOND;
const PATIENCE: i64 = 300 * SECOND;
/// Signals: three numbers, the first two with an interval, and a text.
const WIDTH: usize = 4;
const TEXT: u16 = 3;

fn params() -> QualityParams {
    QualityParams { intervals: vec![Some(600 * SECOND), Some(700 * SECOND), None, None] }
}

/// What makes two arrivals duplicates.
type Key = (i64, Vec<i64>, Vec<(u16, Arc<str>)>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at: i64,
    values: Vec<i64>,
    texts: Vec<(u16, Arc<str>)>,
    invalid: Vec<u16>,
}

impl Arrival {
    fn key(&self) -> Key {
        (self.at, self.values.clone(), self.texts.clone())
    }

    fn knows(&self, signal: u16) -> bool {
        signal == TEXT && !self.texts.is_empty() || self.values[usize::from(signal)] != NULL
    }
}

/// What came in time, and the late with the newest time when they came.
#[derive(Clone, Debug, Default)]
struct Reference {
    timely: Vec<Arrival>,
    late: Vec<(i64, Arrival)>,
}

fn hour_of(at: i64) -> i64 {
    at.div_euclid(HOUR) * HOUR
}

impl Reference {
    /// The facts of the hours that end at `upto` or before.
    fn facts(&self, upto: i64) -> BTreeSet<QualityFact> {
        let hours: BTreeSet<i64> = self.timely.iter().map(|a| hour_of(a.at)).collect();
        let hours = hours.into_iter().filter(|start| start.saturating_add(HOUR) <= upto);
        hours.flat_map(|start| (0..WIDTH as u16).filter_map(move |signal| self.fact(start, signal))).collect()
    }

    fn fact(&self, start: i64, signal: u16) -> Option<QualityFact> {
        let inside: Vec<&Arrival> = self.timely.iter().filter(|a| hour_of(a.at) == start).collect();
        let arrivals = inside.iter().filter(|a| a.knows(signal)).count() as i64;
        let distinct: BTreeSet<_> = inside.iter().filter(|a| a.knows(signal)).map(|a| a.key()).collect();
        let received = distinct.len() as i64;
        let invalid = inside.iter().filter(|a| a.invalid.contains(&signal)).count() as i64;
        let late = self.late.iter().filter(|(newest, a)| hour_of(*newest) == start && a.knows(signal)).count() as i64;
        let expected = params().intervals[usize::from(signal)].map(|interval| {
            let (first, last) = (inside.iter().map(|a| a.at).min()?, inside.iter().map(|a| a.at).max()?);
            Some((0..).take_while(|n| first + n * interval <= last).count() as i64)
        });
        let expected = expected.flatten();
        let spoke = |a: &&Arrival| a.knows(signal) || a.invalid.contains(&signal);
        let spoke = self.timely.iter().filter(spoke).any(|a| hour_of(a.at) <= start);
        let duplicates = arrivals - received;
        (received + invalid + late > 0 || (spoke && expected.is_some())).then(|| QualityFact {
            vehicle: "v".into(),
            signal,
            start,
            expected,
            received,
            invalid,
            duplicates,
            late,
        })
    }
}

/// One vehicle as `sequence` drives it.
struct Bench {
    state: State,
    reference: Reference,
    /// What has been said and not been taken back.
    said: BTreeMap<QualityFact, isize>,
    known: BTreeSet<Key>,
    newest: i64,
    floor: i64,
    level: Option<i64>,
}

impl Bench {
    fn new() -> Self {
        Bench {
            state: State::new(&params()),
            reference: Reference::default(),
            said: BTreeMap::new(),
            known: BTreeSet::new(),
            newest: i64::MIN,
            floor: i64::MIN,
            level: None,
        }
    }

    fn take(&mut self, out: Vec<Change<QualityFact>>) {
        for (fact, diff) in out {
            *self.said.entry(fact).or_insert(0) += diff;
        }
        self.said.retain(|_, diff| *diff != 0);
    }

    fn close(&mut self, level: i64, diff: isize) {
        let mut out = Vec::new();
        self.state.close(&params(), PATIENCE, &"v".into(), level, diff, &mut out);
        self.take(out);
    }

    fn epoch(&mut self, arrivals: &[Arrival]) {
        if let Some(level) = self.level.take() {
            self.close(level, -1);
        }
        let (late, timely): (Vec<_>, Vec<_>) = arrivals.iter().partition(|a| a.at < self.floor);
        for a in late {
            self.state.late(&a.values, &a.texts);
            self.reference.late.push((self.newest, a.clone()));
        }
        for a in timely {
            self.state.arrived(a.at, &a.values, &a.texts);
            a.invalid.iter().for_each(|signal| self.state.invalid(a.at, *signal));
            if !self.known.insert(a.key()) {
                self.state.duplicate(a.at, &a.values, &a.texts);
            }
            self.newest = self.newest.max(a.at);
            self.reference.timely.push(a.clone());
        }
        self.floor = self.newest.saturating_sub(HORIZON).max(self.floor);
        let mut out = Vec::new();
        self.state.settle(&params(), &"v".into(), self.floor, &mut out);
        self.take(out);
    }

    fn silence(&mut self, watermark: i64) {
        if let Some(level) = self.level {
            self.close(level, -1);
        }
        let before = self.level.unwrap_or(i64::MIN);
        let due = self.state.deadline(PATIENCE, before).is_some_and(|deadline| deadline <= watermark);
        let had: BTreeSet<_> = self.reference.facts(before.saturating_sub(PATIENCE).max(self.floor));
        self.level = Some(self.level.map_or(watermark, |level| level.max(watermark)));
        self.close(self.level.unwrap_or(watermark), 1);
        assert!(due || self.sum() == had, "said something though nothing was due");
    }

    fn sum(&self) -> BTreeSet<QualityFact> {
        assert!(self.said.values().all(|diff| *diff == 1), "{:?}", self.said);
        self.said.keys().cloned().collect()
    }

    fn check(&self) {
        let silent = self.level.map_or(i64::MIN, |level| level.saturating_sub(PATIENCE));
        // Hours without patience are those of the end of the input.
        let upto = if self.level == Some(i64::MAX) { i64::MAX } else { silent.max(self.floor) };
        assert_eq!(self.sum(), self.reference.facts(upto));
    }
}

/// Times within six hours from ten minutes before 1970: few, so that duplicates and borders are frequent.
fn arrival() -> impl Strategy<Value = Arrival> {
    let value = || prop_oneof![2 => Just(NULL), 3 => 0i64..2];
    let values = prop::array::uniform3(value());
    let invalid = prop::array::uniform3(prop::bool::weighted(0.2));
    (-2i64..64, values, prop::option::weighted(0.2, Just("x")), invalid).prop_map(|(slot, values, text, invalid)| {
        let invalid = (0u16..3).filter(|s| invalid[usize::from(*s)] && values[usize::from(*s)] == NULL).collect();
        let texts = text.map(|text| (TEXT, Arc::from(text))).into_iter().collect();
        Arrival { at: slot * 300 * SECOND, values: values.into_iter().chain([NULL]).collect(), texts, invalid }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Epoch(Vec<Arrival>),
    Silence(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let epoch = prop::collection::vec(arrival(), 0..8).prop_map(Step::Epoch);
    let silence = (0i64..80).prop_map(|slot| Step::Silence(slot * 300 * SECOND));
    prop::collection::vec(prop_oneof![4 => epoch, 1 => silence], 1..12)
}

proptest! {
    #[test]
    fn what_is_said_is_what_came(steps in steps()) {
        let mut bench = Bench::new();
        for step in steps {
            match step {
                Step::Epoch(arrivals) => bench.epoch(&arrivals),
                Step::Silence(watermark) if bench.level.is_none_or(|level| level < watermark) => bench.silence(watermark),
                Step::Silence(_) => {}
            }
            bench.check();
        }
        bench.silence(i64::MAX);
        bench.check();
    }

    /// Where nothing is late, neither the epochs nor the order within them matter.
    #[test]
    fn order_and_batching_do_not_matter(
        arrivals in prop::collection::vec(arrival(), 1..40).prop_shuffle(),
        size in 1usize..40,
    ) {
        let mut sorted = arrivals.clone();
        sorted.sort();
        let mut whole = Bench::new();
        whole.epoch(&arrivals);
        whole.silence(i64::MAX);
        let mut parts = Bench::new();
        sorted.chunks(size).for_each(|epoch| parts.epoch(epoch));
        parts.silence(i64::MAX);
        prop_assert_eq!(whole.said, parts.said);
    }
}

fn fact(signal: u16, start: i64, expected: Option<i64>, counts: [i64; 4]) -> QualityFact {
    let [received, invalid, duplicates, late] = counts;
    QualityFact { vehicle: "v".into(), signal, start, expected, received, invalid, duplicates, late }
}

fn at(minutes: i64, values: [i64; 3], invalid: &[u16]) -> Arrival {
    let values = values.into_iter().chain([NULL]).collect();
    Arrival { at: minutes * 60 * SECOND, values, texts: Vec::new(), invalid: invalid.to_vec() }
}

#[test]
fn by_hand() {
    let mut bench = Bench::new();
    bench.epoch(&[at(0, [1, NULL, 1], &[1]), at(10, [1, NULL, NULL], &[]), at(10, [1, NULL, NULL], &[])]);
    bench.epoch(&[at(55, [NULL, NULL, 2], &[0])]);
    assert!(bench.said.is_empty(), "the hour is open");
    // 90 minutes less the horizon of 30 is the end of the hour. The second signal, invalid so far, is silent.
    bench.epoch(&[at(90, [NULL, NULL, 3], &[])]);
    let first = [fact(0, 0, Some(6), [2, 1, 1, 0]), fact(1, 0, Some(5), [0, 1, 0, 0]), fact(2, 0, None, [2, 0, 0, 0])];
    assert_eq!(bench.sum(), BTreeSet::from(first.clone()));
    // A late one counts in the newest hour, in which the first two signals have said nothing.
    bench.epoch(&[at(20, [1, NULL, NULL], &[])]);
    assert_eq!(bench.sum(), BTreeSet::from(first.clone()));
    bench.silence(i64::MAX);
    let second =
        [fact(0, HOUR, Some(1), [0, 0, 0, 1]), fact(1, HOUR, Some(1), [0, 0, 0, 0]), fact(2, HOUR, None, [1, 0, 0, 0])];
    assert_eq!(bench.sum(), BTreeSet::from_iter(first.into_iter().chain(second)));
}

#[test]
fn nothing_when_switched_off_and_the_catalogue_says_the_intervals() {
    assert_eq!(QualityParams::new(&QualityConfig { enabled: false }, &catalogue()), None);
    let mut catalogue = catalogue();
    catalogue.signals[1].interval = Some(SECOND);
    catalogue.signals[2].interval = Some(0);
    let params = QualityParams::new(&QualityConfig::default(), &catalogue).unwrap();
    assert_eq!(params.intervals, vec![None, Some(SECOND), None, None]);
}
