//! Against a model: whatever is written, merged, named and cut off by crashes, every checkpoint that may be named
//! loads as the state was at its epoch.

use super::*;
use crate::checkpoint::merge::Tiers;
use proptest::prelude::*;

const KEYED: [&str; 2] = ["alpha", "beta"];
const SUM: &str = "rows";
const WORKERS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    /// So many records of merges, twice.
    Merge(usize),
    /// The oldest checkpoint but so many is named.
    Name(usize),
    Crash,
}

/// One change of a key or row; how it is to be understood is the operator's.
#[derive(Clone, Debug)]
struct Change {
    operator: usize,
    key: u8,
    value: Option<u8>,
}

type Model = BTreeMap<(usize, u8), Got>;

fn key(key: u8) -> Vec<u8> {
    // Keys that are prefixes of each other.
    vec![b'k'; usize::from(key)]
}

fn apply(model: &mut Model, change: &Change) {
    let at = (change.operator, change.key);
    match (change.operator, change.value) {
        (0 | 1, Some(value)) => {
            model.insert(at, Got::Bytes(vec![value; usize::from(value % 50)]));
        }
        (0 | 1, None) => {
            model.remove(&at);
        }
        (_, value) => {
            let old = match model.remove(&at) {
                Some(Got::Count(n)) => n,
                _ => 0,
            };
            let new = old + diff(value);
            if new != 0 {
                model.insert(at, Got::Count(new));
            }
        }
    }
}

fn diff(value: Option<u8>) -> i64 {
    value.map_or(-1, |v| i64::from(v % 3) - 1)
}

/// The changes as the workers would hand them over: each key by one worker, each row by any.
fn parts(changes: &[Change]) -> Vec<PackedPart> {
    let mut parts = Vec::new();
    for worker in (0..WORKERS).rev() {
        for (number, operator) in KEYED.iter().enumerate() {
            let mut records = Records::keyed();
            for change in changes.iter().filter(|c| c.operator == number && c.key % WORKERS == worker) {
                match change.value {
                    Some(v) => records.put(&key(change.key), |out| out.resize(out.len() + usize::from(v % 50), v)),
                    None => records.remove(&key(change.key)),
                }
            }
            parts.push(Part { operator: operator.to_string(), worker: worker.into(), records }.into());
        }
        let mut records = Records::sum();
        for (i, change) in changes.iter().enumerate().filter(|(_, c)| c.operator == 2) {
            if i % usize::from(WORKERS) == usize::from(worker) {
                records.add(diff(change.value), |out| out.extend_from_slice(&key(change.key)));
            }
        }
        parts.push(Part { operator: SUM.to_string(), worker: worker.into(), records }.into());
    }
    parts
}

fn check(data: &Path, entry: &CheckpointEntry, model: &Model) {
    for (number, operator) in KEYED.iter().chain([&SUM]).enumerate() {
        let of = model.iter().filter(|((o, _), _)| *o == number);
        let expected: State = of.map(|((_, k), got)| (key(*k), got.clone())).collect();
        assert_eq!(loaded(data, entry, operator).unwrap(), expected, "{operator} at epoch {}", entry.epoch);
    }
}

/// A run of the job, with what may be restored from.
struct Run<'a> {
    data: &'a Path,
    keeper: Keeper,
    generation: u64,
    epoch: i64,
    model: Model,
    named: Option<(CheckpointEntry, Model)>,
    unnamed: Vec<(CheckpointEntry, Model)>,
}

impl Run<'_> {
    fn place(data: &Path, generation: u64) -> Place {
        Place { block: 64, tiers: Tiers { files: 2, small: 200 }, ..Place::new(data, generation) }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(changes) => {
                self.epoch += 2;
                changes.iter().for_each(|change| apply(&mut self.model, change));
                let entry = self.keeper.write(self.epoch, parts(changes)).unwrap();
                self.unnamed.push((entry, self.model.clone()));
                let mut kept: Vec<String> = self.known().flat_map(|(entry, _)| paths(entry)).collect();
                kept.sort();
                kept.dedup();
                let there = files_in(self.data).into_iter().filter(|f| f.ends_with(".ckpt"));
                assert_eq!(there.collect::<Vec<_>>(), kept, "what is there is what may be needed");
            }
            Step::Merge(records) => {
                for _ in 0..2 {
                    if self.keeper.plan().unwrap() {
                        self.keeper.step(*records).unwrap();
                    }
                }
            }
            Step::Name(but) => {
                if let Some(at) = self.unnamed.len().checked_sub(1 + but) {
                    self.named = self.unnamed.drain(..=at).next_back();
                    self.keeper.named(&self.named.as_ref().unwrap().0);
                }
            }
            Step::Crash => self.crash(),
        }
        self.known().for_each(|(entry, model)| check(self.data, entry, model));
    }

    fn crash(&mut self) {
        let base = self.named.as_ref().map(|(entry, _)| entry.clone());
        self.generation += 1;
        // The old one goes as it stands: an unfinished merge leaves its file behind.
        self.keeper = Keeper::new(Self::place(self.data, self.generation), base.clone());
        sweep(self.data, self.generation, base.as_ref()).unwrap();
        assert_eq!(files_in(self.data), base.as_ref().map(paths).unwrap_or_default());
        self.epoch = base.map_or(0, |b| b.epoch);
        self.model = self.named.as_ref().map(|(_, model)| model.clone()).unwrap_or_default();
        self.unnamed.clear();
    }

    fn known(&self) -> impl Iterator<Item = &(CheckpointEntry, Model)> {
        self.named.iter().chain(&self.unnamed)
    }
}

fn change() -> impl Strategy<Value = Change> {
    (0usize..3, 0u8..12, proptest::option::weighted(0.6, any::<u8>())).prop_map(|(operator, key, value)| Change {
        operator,
        key,
        value,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec(change(), 0..12).prop_map(Step::Write),
        8 => prop_oneof![1usize..6, Just(1000)].prop_map(Step::Merge),
        3 => (0usize..3).prop_map(Step::Name),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_history_loads_as_the_model_has_it(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(Run::place(dir.path(), 1), None);
        let model = Model::new();
        let data = dir.path();
        let mut run = Run { data, keeper, generation: 1, epoch: 0, model, named: None, unnamed: Vec::new() };
        steps.iter().for_each(|step| run.step(step));
    }
}
