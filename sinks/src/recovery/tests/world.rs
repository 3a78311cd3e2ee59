//! Where the model runs: a data directory, and local topics or a broker's double; and what a reader sees of it.

use super::model::{Ending, Model, WALL, catalogue, ticket};
use crate::checkpoint::{CheckpointEntry, Value, load};
use crate::commit::{Committer, CommitterConfig};
use crate::failpoint::Plan;
use crate::history::HistoryConfig;
use crate::kafka::KafkaError;
use crate::live::{LocalOutlet, read_dead_letters, read_latest};
use crate::manifest::{bindings, manifest, published};
use crate::message::Message;
use crate::outlet::{LiveOutput, Outlet, OutletError};
use crate::progress::data::{DataDir, Held};
use crate::progress::{
    Claim, FileEntry, ProgressEntry, ProgressError, ProgressLog, ProgressRecord, first_needed, local,
};
use crate::recovery::{self, Identity, Start};
use crate::store::{Remote, Storage};
use crate::{failpoint, units};
use arrow::util::display::array_value_to_string;
use object_store::local::LocalFileSystem;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A broker's double: what is committed, and who may commit.
#[derive(Debug, Default)]
pub(super) struct Broker {
    entries: Vec<ProgressEntry>,
    values: BTreeMap<(String, String), String>,
    letters: Vec<(i64, i64)>,
    producer: u64,
}

/// A client of the double: transactions, and fencing as Kafka does it.
struct Client {
    broker: Arc<Mutex<Broker>>,
    producer: u64,
    generation: u64,
    resumed: i64,
    live: LiveOutput,
    record: Option<ProgressRecord>,
}

impl Client {
    fn connect(broker: &Arc<Mutex<Broker>>) -> Self {
        let mut b = broker.lock().unwrap();
        b.producer += 1;
        let (broker, producer) = (broker.clone(), b.producer);
        Self { broker, producer, generation: 0, resumed: -1, live: LiveOutput::default(), record: None }
    }

    fn check(&self) -> Result<std::sync::MutexGuard<'_, Broker>, KafkaError> {
        let broker = self.broker.lock().unwrap();
        if broker.producer == self.producer { Ok(broker) } else { Err(KafkaError::Fenced { job: "job".into() }) }
    }
}

impl ProgressLog for Client {
    fn claim(&mut self, claim: &Claim) -> Result<(), ProgressError> {
        self.check()?.entries.push(ProgressEntry::Claim(claim.clone()));
        self.generation = claim.generation;
        Ok(())
    }
    fn append(&mut self, record: &ProgressRecord) -> Result<(), ProgressError> {
        drop(self.check()?);
        self.record = Some(record.clone());
        Ok(())
    }
    fn read_all(&self) -> Result<Vec<ProgressEntry>, ProgressError> {
        Ok(self.broker.lock().unwrap().entries.clone())
    }
    /// As Kafka's: whoever asks may do it, and knows where its own commits stand.
    fn trim(&mut self, checkpoint: i64) -> Result<(), ProgressError> {
        let mut broker = self.broker.lock().unwrap();
        let own = broker.entries.iter().enumerate().filter_map(|(i, entry)| match entry {
            ProgressEntry::Commit(r) if r.generation == self.generation => Some((i, r.last_epoch())),
            _ => None,
        });
        let own: Vec<(usize, Option<i64>)> = own.collect();
        if checkpoint >= self.resumed && !own.is_empty() {
            let (index, _) = own[first_needed(own.iter().map(|c| c.1), checkpoint)];
            failpoint::hit("trim.between")?;
            broker.entries.drain(..index);
        }
        Ok(())
    }
}

impl Outlet for Client {
    fn resume(&mut self, committed: i64) -> Result<(), OutletError> {
        self.resumed = committed;
        Ok(())
    }
    fn begin(&mut self) -> Result<(), OutletError> {
        drop(self.check()?);
        (self.live, self.record) = Default::default();
        Ok(())
    }
    fn produce(&mut self, output: &LiveOutput) -> Result<(), OutletError> {
        drop(self.check()?);
        failpoint::hit("produce.between")?;
        self.live = output.clone();
        Ok(())
    }
    fn commit(&mut self) -> Result<(), OutletError> {
        let record = self.record.take().expect("a record comes before the commit");
        let live = std::mem::take(&mut self.live);
        let mut broker = self.check()?;
        for change in live.changes {
            let key = (change.topic.name().to_string(), change.key.to_string());
            match change.value {
                Some(value) => drop(broker.values.insert(key, value)),
                None => drop(broker.values.remove(&key)),
            }
        }
        broker.letters.extend(live.dead_letters.iter().map(|l| (l.epoch, l.reject.position)));
        broker.entries.push(ProgressEntry::Commit(record));
        Ok(())
    }
}

pub(super) struct World {
    dir: tempfile::TempDir,
    /// Without it topics are local.
    pub(super) broker: Option<Arc<Mutex<Broker>>>,
    /// What outlives a run is in a store; with a broker each run has a data directory of its own.
    store: bool,
    starts: AtomicU64,
    /// Each epoch's rows are published at once; else all at the end.
    eager: bool,
    pub(super) until: i64,
    pub(super) ending: Ending,
}

/// What one run is like.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) workers: usize,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) bug: Option<i64>,
    pub(super) version: &'static str,
    pub(super) sections: BTreeMap<String, String>,
}

impl Default for Run {
    fn default() -> Self {
        Self { workers: 2, plan: None, bug: None, version: "v", sections: BTreeMap::new() }
    }
}

impl Run {
    pub(super) fn killed_at(step: &str, nth: u64) -> Self {
        Self { plan: Plan::new(step, nth, || Err(std::io::Error::other("killed"))), ..Self::default() }
    }
}

/// What readers see, comparable between runs that were cut differently.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    history: Vec<String>,
    live: BTreeMap<(String, String), String>,
    letters: Vec<String>,
    tickets: Vec<i64>,
    committed: i64,
    history_epoch: i64,
    digests: String,
    end: bool,
    checkpoint: BTreeMap<String, String>,
}

impl Seen {
    pub(super) fn tickets_until(&self) -> i64 {
        assert_eq!(self.tickets, (0..self.tickets.len() as i64).collect::<Vec<_>>(), "no epoch is missing");
        self.tickets.len() as i64 - 1
    }
}

impl World {
    pub(super) fn new(kafka: bool, eager: bool, ending: Ending) -> Self {
        let broker = kafka.then(Arc::default);
        // In memory where there is a place for it: a kill within the process loses nothing that was written, synced or not.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { dir, broker, store: false, starts: AtomicU64::new(0), eager, until: 13, ending }
    }

    pub(super) fn on_store(kafka: bool, eager: bool, ending: Ending) -> Self {
        let world = Self { store: true, ..Self::new(kafka, eager, ending) };
        std::fs::create_dir(world.data()).unwrap();
        world
    }

    /// Where what outlives a run is: the data directory, or that of the store.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join(if self.store { "s" } else { "d" })
    }

    /// The data directory.
    fn local(&self) -> PathBuf {
        self.dir.path().join("d")
    }

    /// Of the next start.
    fn next_local(&self) -> PathBuf {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        if self.store && self.broker.is_some() { self.dir.path().join(format!("d{number}")) } else { self.local() }
    }

    fn remote(&self) -> Option<Remote> {
        let store = || LocalFileSystem::new_with_prefix(self.data()).unwrap();
        self.store.then(|| Remote::new(Arc::new(store()), "", "s3://bucket"))
    }

    /// As a reader has it.
    fn storage(&self) -> Storage {
        Storage::new(&if self.store { self.dir.path().join("reader") } else { self.data() }, self.remote())
    }

    pub(super) fn is_on_store(&self) -> bool {
        self.store
    }

    /// Starts the job and runs it to its end, or to where the plan ends it.
    pub(super) fn run(&self, run: &Run) -> Result<(), String> {
        failpoint::adopt(run.plan.clone());
        let result = self.start(run);
        failpoint::adopt(None);
        result
    }

    fn start(&self, run: &Run) -> Result<(), String> {
        let held = if self.broker.is_some() { Held::TakeOver } else { Held::Refuse };
        let data = DataDir::lock(&self.next_local(), "job", WALL, held).map_err(|e| e.to_string())?;
        let data = data.with_store(self.remote());
        let mut outlet: Box<dyn Outlet> = match &self.broker {
            Some(broker) => Box::new(Client::connect(broker)),
            None => Box::new(LocalOutlet::open(&data).map_err(|e| e.to_string())?.with_small(0)),
        };
        let identity = Identity {
            job: "job".into(),
            config_hash: "c".into(),
            version: run.version.into(),
            sections: run.sections.clone(),
        };
        let started = recovery::start(&data, outlet.as_mut(), &identity).map_err(|e| e.to_string())?;
        let (generation, resumed) = match started {
            Start::Finished { .. } => return Ok(()),
            Start::New { generation } => (generation, None),
            Start::Resumed(resumed) => (resumed.generation, Some(*resumed)),
        };
        let mut model = match resumed.as_ref().and_then(|r| r.checkpoint.as_ref()) {
            Some(entry) => Model::load(&self.storage(), entry),
            None => Model::default(),
        };
        model.bug = run.bug;
        let (mut next, mut last) = (0, -1);
        let mut plan = Vec::new();
        let mut resume = None;
        if let Some(resumed) = resumed {
            (next, last) = (resumed.next_epoch, resumed.committed);
            plan = resumed.tickets;
            assert_eq!(plan.len() as i64, resumed.committed - next + 1);
            self.check_positions(next, &resumed.positions, &resumed.control);
            resume = Some(resumed.committer);
        }
        let eager =
            HistoryConfig { buffer: units::ByteSize(1), roll_bytes: units::ByteSize(1), ..HistoryConfig::default() };
        let history = if self.eager { eager } else { HistoryConfig::default() };
        let (workers, catalogue) = (run.workers, catalogue());
        let config = CommitterConfig { data, generation, identity, workers, catalogue, history, resume };
        let handle = Committer::start(config, outlet).map_err(|e| e.to_string())?;
        let (sender, committed) = (handle.sender(), handle.committed());
        let repeated = plan.into_iter().map(Some).chain(std::iter::repeat(None));
        'epochs: for (epoch, ticket_then) in (next..=self.until).zip(repeated) {
            let ticket = ticket(epoch, self.until, self.ending);
            assert!(ticket_then.is_none_or(|then| then == ticket), "the ticket of epoch {epoch}");
            // So that files are published and checkpoints named all along, whatever else the machine has to do.
            let published =
                || !self.eager || epoch <= last + 3 || published(self.storage()).unwrap().history_epoch >= epoch - 3;
            let ready = || committed.load(Ordering::Acquire) >= epoch - 1 && published();
            while !ready() && !handle.is_finished() {
                std::thread::park_timeout(Duration::from_micros(200));
            }
            for message in model.step(&ticket, run.workers) {
                if sender.send(message).is_err() {
                    break 'epochs;
                }
            }
        }
        if self.ending == Ending::Stop {
            let _ = sender.send(Message::Stop);
        }
        drop(sender);
        handle.join().map(drop).map_err(|e| e.to_string())
    }

    /// Positions and documents are those of all tickets before.
    fn check_positions(
        &self,
        next: i64,
        positions: &[crate::message::Binding],
        control: &[drivetrain_schemas::control::ControlChange],
    ) {
        let (mut ends, mut documents) = (BTreeMap::new(), BTreeMap::new());
        for ticket in (0..next).map(|e| ticket(e, self.until, self.ending)) {
            ends.extend(ticket.bindings.into_iter().map(|b| (b.origin.partition, b.end)));
            for change in ticket.control {
                match change.document {
                    Some(document) => drop(documents.insert(change.key, document)),
                    None => drop(documents.remove(&change.key)),
                }
            }
        }
        let positions: BTreeMap<i32, i64> = positions.iter().map(|b| (b.origin.partition, b.end)).collect();
        assert_eq!(positions, ends, "at epoch {next}");
        let control: BTreeMap<_, _> = control.iter().map(|c| (c.key.clone(), c.document.clone().unwrap())).collect();
        assert_eq!(control, documents, "at epoch {next}");
    }

    pub(super) fn entries(&self) -> Vec<ProgressEntry> {
        match &self.broker {
            Some(broker) => broker.lock().unwrap().entries.clone(),
            None => local::read_all(&self.local()).unwrap(),
        }
    }

    pub(super) fn records(&self) -> Vec<ProgressRecord> {
        let commit = |e| if let ProgressEntry::Commit(r) = e { Some(r) } else { None };
        self.entries().into_iter().filter_map(commit).collect()
    }

    pub(super) fn checkpoint(&self) -> Option<CheckpointEntry> {
        self.records().into_iter().rev().find_map(|r| r.checkpoint)
    }

    /// What runs have left that nobody reads.
    pub(super) fn left_over(&self) -> Vec<PathBuf> {
        files_below(&self.data().join("staging"))
    }

    /// What readers see after a run that has ended. Also checks that the files are what the manifest says.
    pub(super) fn seen(&self) -> Seen {
        let data = self.data();
        let manifest = manifest(self.storage()).unwrap();
        let mut on_disk = files_below(&data.join("history"));
        // What the store's double leaves when it copies a file a second time: renaming a link to itself does nothing.
        on_disk.retain(|path| !self.store || !path.to_string_lossy().contains('#'));
        let mut named: Vec<PathBuf> = manifest.files.iter().map(|f| data.join(&f.path)).collect();
        named.sort();
        assert_eq!(on_disk, named, "the history has what the manifest names, and nothing else");
        let mut history: Vec<String> = manifest.files.iter().flat_map(|file| rows(&data, file)).collect();
        history.sort();
        let (live, letters) = match &self.broker {
            Some(broker) => {
                let broker = broker.lock().unwrap();
                (broker.values.clone(), broker.letters.iter().map(|l| format!("{l:?}")).collect())
            }
            None => {
                let values = read_latest(&self.local(), "driver_scores").unwrap();
                let values = values.into_iter().map(|(k, v)| (("driver_scores".to_string(), k), v)).collect();
                (values, read_dead_letters(&self.local()).unwrap())
            }
        };
        let records = self.records();
        let last = records.last().unwrap();
        let mut checkpoint = BTreeMap::new();
        for operator in ["model", "committer"] {
            let entry = self.checkpoint();
            let mut put = |key: &[u8], value: Value<'_>| {
                let Value::Bytes(value) = value else { panic!("{value:?}") };
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                checkpoint.insert(format!("{operator}/{}", text(key)), text(value));
            };
            if let Some(entry) = &entry {
                load(self.storage(), entry, operator, &mut put).unwrap();
            }
        }
        Seen {
            history,
            live,
            letters,
            tickets: bindings(&data.join("bindings")).unwrap().into_keys().collect(),
            committed: last.committed_epoch,
            history_epoch: last.history_epoch.min(manifest.history_epoch),
            digests: serde_json::to_string(&last.digests).unwrap(),
            end: last.end && manifest.end,
            checkpoint,
        }
    }
}

/// All rows of a file with its table.
fn rows(data: &Path, file: &FileEntry) -> Vec<String> {
    let bytes = std::fs::read(data.join(&file.path)).unwrap();
    assert_eq!(file.checksum, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)), "{}", file.path);
    let reader = std::fs::File::open(data.join(&file.path)).unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(reader).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in batches.map(Result::unwrap) {
        for i in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| array_value_to_string(c, i).unwrap());
            rows.push(format!("{} {}", file.table.name(), cells.collect::<Vec<_>>().join("|")));
        }
    }
    assert_eq!(rows.len() as u64, file.rows, "{}", file.path);
    rows
}

/// All files below a directory, sorted.
pub(super) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
