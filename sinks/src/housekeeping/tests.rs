//! The history before and after, whatever happens in between.

use super::*;
use crate::failpoint::{HOUSEKEEPING, Plan as Kill, adopt};
use crate::history::{EpochRows, HistoryWriter, Published, publish};
use crate::manifest::{ManifestWriter, Publication, published};
use crate::message::Ticket;
use crate::progress::FileEntry;
use crate::progress::data::{DataDir, Held};
use crate::units::{ByteSize, Span};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::row::{Cell, Row};
use drivetrain_schemas::table::Table;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// 2026-05-01, µs.
const T0: i64 = 1_777_593_600_000_000;
const DAY: i64 = 86_400_000_000;
const MINUTE: i64 = 60_000_000;

/// A change of `quality`: vehicle, day, content, epoch, diff.
type Said = (u8, i64, i64, i64, i64);

/// A data directory as a job leaves it. Each epoch takes a minute of wall time.
struct World {
    dir: tempfile::TempDir,
    commit: u64,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::lock(dir.path(), "j", 0, Held::Refuse).unwrap());
        let world = Self { dir, commit: 0 };
        ManifestWriter::begin(world.data(), 1, &world.publication(1, -1, Vec::new()), &[]).unwrap();
        world
    }

    fn data(&self) -> &Path {
        self.dir.path()
    }

    fn publication(&self, generation: u64, epoch: i64, files: Vec<FileEntry>) -> Publication {
        let (committed_epoch, history_epoch) = (epoch, epoch);
        Publication { format: 2, generation, commit: self.commit, committed_epoch, history_epoch, files, end: false }
    }

    /// Publishes rows, in one file a day, as generation 1. Returns the files.
    fn publish(&mut self, said: &[Said]) -> Vec<FileEntry> {
        self.commit += 1;
        let catalogue = Arc::new(Catalogue::default());
        // Files of one generation are numbered; here each publication is a start of its own.
        let generation = 1000 + self.commit;
        let config = HistoryConfig { row_group_rows: 4, ..HistoryConfig::default() };
        let mut writer =
            HistoryWriter::start(self.data(), generation, catalogue, config, Published::default()).unwrap();
        let epochs: BTreeSet<i64> = said.iter().map(|s| s.3).collect();
        for &epoch in &epochs {
            let rows = said.iter().filter(|s| s.3 == epoch).map(|s| (quality(s), s.4)).collect();
            writer.add(EpochRows { epoch, rows: vec![(TableId::Quality, rows)], readings: Vec::new() }).unwrap();
        }
        let files = writer.drain().unwrap().files;
        publish(self.data(), generation, &files).unwrap();
        let newest = epochs.last().copied().unwrap_or(-1);
        let mut manifest = ManifestWriter::open(self.data(), 1, i64::MAX).unwrap();
        manifest.publish(&self.publication(1, newest, files.clone())).unwrap();
        let ticket = |epoch: &i64| Ticket { epoch: *epoch, wall: epoch * MINUTE, ..Ticket::default() };
        manifest.bind(&epochs.iter().map(ticket).collect::<Vec<_>>()).unwrap();
        files
    }

    /// All changes in these files.
    fn said(&self, files: &[FileEntry]) -> Vec<Said> {
        files.iter().flat_map(|f| read(&locate(self.data(), &f.path))).collect()
    }

    fn files(&self) -> Vec<FileEntry> {
        manifest(self.data()).unwrap().files
    }

    /// What is true at the end of an epoch.
    fn state(&self, epoch: i64) -> BTreeMap<(u8, i64, i64), i64> {
        fold(&self.said(&self.files()), epoch)
    }

    /// What a listing of the directory gives.
    fn listing(&self) -> Vec<Said> {
        let mut found = Vec::new();
        below(&self.data().join("history"), &mut found);
        let mut said: Vec<Said> = found.iter().flat_map(|p| read(p)).collect();
        said.sort_unstable();
        said
    }

    /// What lies below `compacted`.
    fn aside(&self) -> Vec<String> {
        let mut found = Vec::new();
        below(&self.data().join("compacted"), &mut found);
        found.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { below(&path, found) } else { found.push(path) }
    }
    found.sort();
}

fn fold(said: &[Said], epoch: i64) -> BTreeMap<(u8, i64, i64), i64> {
    let mut state = BTreeMap::new();
    for (vehicle, day, content, _, diff) in said.iter().filter(|s| s.3 <= epoch) {
        *state.entry((*vehicle, *day, *content)).or_insert(0) += diff;
    }
    state.retain(|_, sum| *sum != 0);
    state
}

fn quality(said: &Said) -> Row {
    let table = Table::new(TableId::Quality, &Catalogue::default());
    let mut cells = vec![Cell::Null; table.columns.len()];
    for name in ["received", "invalid", "duplicates", "late"] {
        cells[table.column(name).unwrap()] = Cell::Int(said.2);
    }
    let vehicle = format!("v{}", said.0);
    cells[0] = Cell::from(vehicle.as_str());
    cells[1] = Cell::from("speed");
    cells[2] = Cell::Time(T0 + said.1 * DAY);
    Row::new(&cells.into_iter().collect::<Vec<_>>())
}

fn read(path: &Path) -> Vec<Said> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mut said = Vec::new();
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let int = |name: &str, i| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(i);
        let vehicles = batch.column(0).as_string::<i32>();
        let starts = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        assert!(batch.column_by_name("expected").unwrap().is_null(0));
        said.extend((0..batch.num_rows()).map(|i| {
            let vehicle = vehicles.value(i)[1..].parse().unwrap();
            (vehicle, (starts.value(i) - T0) / DAY, int("received", i), int("epoch", i), int("diff", i))
        }));
    }
    said
}

/// A log in which each vehicle and day has one row at a time, which changes: `steps` says which one changes when.
fn log(steps: &[(u8, i64)]) -> Vec<Said> {
    let mut now: BTreeMap<(u8, i64), i64> = BTreeMap::new();
    let mut said = Vec::new();
    for (epoch, &(vehicle, day)) in steps.iter().enumerate() {
        let epoch = epoch as i64;
        // Contents come again, and every seventh time the row goes.
        let next = (epoch % 7 > 0).then_some(epoch % 3);
        let last = now.remove(&(vehicle, day));
        if last == next {
            now.extend(last.map(|l| ((vehicle, day), l)));
            continue;
        }
        said.extend(last.map(|content| (vehicle, day, content, epoch, -1)));
        said.extend(next.map(|content| (vehicle, day, content, epoch, 1)));
        now.extend(next.map(|content| ((vehicle, day), content)));
    }
    said
}

fn options(as_of: i64) -> Options {
    let history = HistoryConfig { as_of: Span(as_of), retention: RetentionConfig::forever(), ..Default::default() };
    Options { history, consolidate: true }
}

/// Publishes a log in files of so many changes.
fn published_in(said: &[Said], each: usize) -> World {
    let mut world = World::new();
    let mut rest = said;
    while !rest.is_empty() {
        // A publication has whole epochs.
        let mut n = each.min(rest.len());
        while n < rest.len() && rest[n].3 == rest[n - 1].3 {
            n += 1;
        }
        world.publish(&rest[..n]);
        rest = &rest[n..];
    }
    world
}

fn sample() -> Vec<Said> {
    log(&(0..60).map(|i| ((i * 5 % 7) as u8 % 3, i * 3 % 2)).collect::<Vec<_>>())
}

fn is_sorted(said: &[Said]) -> bool {
    said.is_sorted_by_key(|s| (s.0, s.1, s.3))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Every state from the limit on is what it was; files are few, sorted, and say what they hold; a second run has
    /// nothing to do.
    #[test]
    fn the_history_from_the_limit_on_stays(
        steps in proptest::collection::vec((0u8..3, 0i64..2), 1..60),
        each in 1usize..9,
        as_of in prop_oneof![0i64..8, 0i64..70],
        fan_in in 2usize..6,
    ) {
        let said = log(&steps);
        let world = published_in(&said, each);
        let newest = said.iter().map(|s| s.3).max().unwrap_or(0);
        let before = world.files();
        let coverage = Published::of(&before).unwrap();
        let mut keeper = Housekeeper::open(world.data()).unwrap();
        keeper.fan_in = fan_in;
        let done = keeper.run(&options(as_of * MINUTE), 0).unwrap();
        let limit = said.iter().map(|s| s.3).filter(|e| *e <= newest - as_of).max().unwrap_or(-1);
        for epoch in limit..=newest {
            prop_assert_eq!(world.state(epoch), fold(&said, epoch), "at {}", epoch);
        }
        let files = world.files();
        prop_assert!(files.len() <= 2, "{files:?}");
        prop_assert_eq!(Published::of(&published(world.data()).unwrap().files).unwrap(), coverage);
        let rows = |files: &[FileEntry]| files.iter().map(|f| f.rows).sum::<u64>();
        prop_assert_eq!(rows(&files) + done.cancelled, rows(&before));
        for file in &files {
            let said = world.said(std::slice::from_ref(file));
            // A file that was left as the job wrote it is sorted group by group.
            let untouched = before.iter().any(|f| f.path == file.path);
            prop_assert!(untouched || is_sorted(&said), "{said:?}");
            prop_assert_eq!(said.len() as u64, file.rows);
            prop_assert_eq!(said.iter().filter(|s| s.4 < 0).count() as u64, file.retractions);
            // Nothing that could cancel is left.
            prop_assert!(said.iter().all(|s| s.4 > 0 || s.3 > limit), "{said:?}");
            prop_assert!(said.iter().all(|s| (file.min_epoch..=file.max_epoch).contains(&s.3)));
            place::verify(world.data(), &file.path, &file.checksum).unwrap();
        }
        let oldest = manifest(world.data()).unwrap().oldest_epoch;
        prop_assert_eq!(oldest, if done.cancelled > 0 { limit } else { -1 });
        prop_assert_eq!(keeper.run(&options(as_of * MINUTE), 0).unwrap(), Done::default());
    }
}

/// A restart leaves out what a partition's files say that they hold: they say it with no row left.
#[test]
fn what_has_cancelled_is_not_written_again() {
    let mut world = World::new();
    world.publish(&[(1, 0, 1, 3, 1), (1, 0, 1, 8, -1), (1, 1, 1, 8, 1)]);
    world.publish(&[(1, 0, 1, 9, 1), (1, 1, 1, 9, -1), (1, 0, 1, 11, -1)]);
    let coverage = Published::of(&world.files()).unwrap();
    let mut keeper = Housekeeper::open(world.data()).unwrap();
    assert_eq!(keeper.run(&options(0), 0).unwrap().cancelled, 6);
    assert_eq!(Published::of(&published(world.data()).unwrap().files).unwrap(), coverage);
    keeper.settle(0, 1).unwrap();
    assert_eq!((world.state(99), world.listing()), (BTreeMap::new(), Vec::new()));
    // The empty files go with the next rows, and what they say stays.
    world.publish(&[(1, 0, 5, 12, 1), (1, 0, 6, 12, 1)]);
    keeper.run(&options(0), 0).unwrap();
    assert_eq!((world.files().len(), world.state(99).len()), (2, 2));
    let day = |d: i64| (TableId::Quality, crate::history::DateKey::of(T0 + d * DAY));
    let now = Published::of(&world.files()).unwrap();
    assert!(now.has(day(0), 12) && now.has(day(1), 9) && !now.has(day(1), 10));
}

/// The listing has the old files until they are deleted, and the new ones from then on.
#[test]
fn readers_have_the_grace_time() {
    let said = sample();
    let world = published_in(&said, 5);
    let (before, old) = (world.listing(), world.files());
    let mut keeper = Housekeeper::open(world.data()).unwrap();
    keeper.run(&options(0), 1_000).unwrap();
    assert_eq!(keeper.settle(500, 1_499).unwrap(), (0, 0));
    assert_eq!((world.listing(), keeper.patience(500, 1_499)), (before.clone(), 1));
    assert_eq!(world.said(&old).len(), before.len(), "a reader goes on");
    let new = world.files();
    let begun: Vec<PathBuf> = new.iter().map(|f| locate(world.data(), &f.path)).collect();
    assert_eq!(keeper.settle(500, 1_500).unwrap().0, old.len() as u64);
    let mut after = world.said(&new);
    after.sort_unstable();
    assert_eq!(world.listing(), after);
    assert!(after.len() < before.len());
    assert!(begun.iter().all(|p| p.exists()), "a reader goes on");
    keeper.settle(500, 2_000).unwrap();
    assert!(begun.iter().all(|p| !p.exists()));
    assert_eq!((world.listing(), world.aside()), (after, vec!["lock".into(), "log.jsonl".into()]));
}

/// Ended at any step, readers see the whole history, and the next run leaves nothing behind.
#[test]
fn killed_at_each_step() {
    let mut said = sample();
    // A third day, which retention takes away.
    said.extend([(9, -9, 1, 59, 1), (9, -8, 1, 59, 1)]);
    said.sort_by_key(|s| s.3);
    let mut options = options(20 * MINUTE);
    options.history.retention.quality = Keep::Days(5);
    let kept = |epoch| {
        let mut state = fold(&said, epoch);
        state.retain(|(_, day, _), _| *day >= 0);
        state
    };
    let now = T0 + 2 * DAY;
    let run = |world: &World| -> Result<(), HousekeepingError> {
        let mut keeper = Housekeeper::open(world.data())?;
        keeper.settle(0, now)?;
        keeper.run(&options, now)?;
        keeper.settle(0, now)?;
        // A start has taken the changes in: the log may go.
        let publication = world.publication(2, 59, published(world.data())?.files);
        ManifestWriter::begin(world.data(), 2, &publication, &[])?;
        keeper.settle(0, now).map(|_| ())
    };
    let mut reached = 0;
    for step in HOUSEKEEPING {
        for nth in 1..4 {
            let world = published_in(&said, 5);
            let kill = Kill::new(step, nth, || Err(std::io::Error::other("killed")));
            adopt(kill.clone());
            let killed = run(&world).is_err();
            adopt(None);
            assert_eq!(killed, kill.unwrap().reached() >= nth, "{step}:{nth}");
            reached += usize::from(killed);
            let mut state = world.state(59);
            state.retain(|(_, day, _), _| *day >= 0);
            assert_eq!(state, kept(59), "{step}:{nth}");
            run(&world).unwrap();
            assert_eq!((world.state(59), world.state(40)), (kept(59), kept(40)), "{step}:{nth}");
            let mut all = world.said(&world.files());
            all.sort_unstable();
            assert_eq!(world.listing(), all, "{step}:{nth}");
            assert_eq!(world.aside(), ["lock", "log.jsonl"], "{step}:{nth}");
            assert_eq!(world.files().len(), 2, "{step}:{nth}");
            let status = status(world.data()).unwrap();
            assert_eq!((status.replaced, status.expired[&TableId::Quality].rows), (0, 2), "{step}:{nth}");
        }
    }
    assert!(reached > HOUSEKEEPING.len(), "{reached} kills");
}

/// Whatever of the changes a start has taken into its manifest, and whatever is published after.
#[test]
fn a_start_between_two_changes() {
    let said = sample();
    let half = said.iter().position(|s| s.3 > 30).unwrap();
    let mut world = published_in(&said[..half], 3);
    let mut keeper = Housekeeper::open(world.data()).unwrap();
    keeper.run(&options(9 * MINUTE), 0).unwrap();
    let taken = published(world.data()).unwrap().files;
    world.publish(&said[half..]);
    let later: Vec<FileEntry> =
        published(world.data()).unwrap().files.into_iter().filter(|f| !taken.contains(f)).collect();
    keeper.run(&options(9 * MINUTE), 0).unwrap();
    let expected = fold(&said, 59);
    assert_eq!(world.state(59), expected);
    // The start had read the log before the second change.
    let whole = world.publication(2, 59, taken.into_iter().chain(later).collect());
    ManifestWriter::begin(world.data(), 2, &whole, &[]).unwrap();
    assert_eq!(world.state(59), expected);
    assert_eq!(keeper.run(&options(9 * MINUTE), 0).unwrap(), Done::default());
    // The second change is needed until the next start.
    keeper.settle(0, 1).unwrap();
    assert_eq!((world.state(59), keeper.log.changes.len()), (expected.clone(), 2));
    let whole = world.publication(3, 59, published(world.data()).unwrap().files);
    ManifestWriter::begin(world.data(), 3, &whole, &[]).unwrap();
    keeper.settle(0, 1).unwrap();
    assert_eq!((world.state(59), keeper.log.changes.len()), (expected, 0));
}

#[test]
fn retention_takes_whole_days_for_good() {
    let day = |d: i64, epoch| (1, d, 1, epoch, 1);
    let mut world = World::new();
    world.publish(&[day(0, 0), day(3, 0), day(4, 0), (1, 4, 2, 0, 1)]);
    // A clock that is ten years ahead makes nothing old.
    world.publish(&[day(3650, 1), day(5, 1)]);
    let mut options = options(0);
    options.history.retention.quality = Keep::Days(2);
    let mut keeper = Housekeeper::open(world.data()).unwrap();
    let now = T0 + 100 * DAY;
    let done = keeper.run(&options, now).unwrap();
    assert_eq!((done.expired, done.expired_rows), (1, 1));
    let days = |world: &World| world.state(99).keys().map(|k| k.1).collect::<BTreeSet<_>>();
    assert_eq!(days(&world), [3, 4, 5, 3650].into());
    let expired = &status(world.data()).unwrap().expired[&TableId::Quality];
    assert_eq!((expired.before.as_str(), expired.rows), ("2026-05-04", 1));
    // What comes later for a day that is gone is gone, too, and counted; also when retention has been lengthened.
    world.publish(&[day(1, 2), day(6, 2)]);
    assert_eq!(days(&world), [3, 4, 5, 6, 3650].into());
    options.history.retention.quality = Keep::Forever;
    assert_eq!(keeper.run(&options, now).unwrap().expired, 1);
    let expired = &status(world.data()).unwrap().expired[&TableId::Quality];
    assert_eq!((expired.before.as_str(), expired.rows), ("2026-05-04", 2));
    keeper.settle(0, now).unwrap();
    assert_eq!(world.listing().iter().map(|s| s.1).collect::<BTreeSet<_>>(), days(&world));
}

#[test]
fn one_at_a_time_and_nothing_damaged() {
    let world = published_in(&sample(), 5);
    let keeper = Housekeeper::open(world.data()).unwrap();
    let error = Housekeeper::open(world.data()).unwrap_err().to_string();
    assert!(error.contains("is being compacted by another process"), "{error}");
    let directory = DataDir::lock(world.data(), "j", 0, Held::Refuse).unwrap();
    let error = directory.fresh().unwrap_err().to_string();
    assert!(error.contains("wait until"), "{error}");
    drop(keeper);
    let before = world.files();
    let path = world.data().join(&before[3].path);
    let mut bytes = std::fs::read(&path).unwrap();
    // In the first column, which planning does not look at.
    bytes[30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut keeper = Housekeeper::open(world.data()).unwrap();
    let error = keeper.run(&options(0), 0).unwrap_err().to_string();
    assert!(error.contains(&before[3].path) && error.contains("is damaged"), "{error}");
    drop(keeper);
    directory.fresh().unwrap();
    assert!(matches!(Housekeeper::open(world.data()), Err(HousekeepingError::NoManifest { .. })));
}

/// Files end at the size asked for; together they are sorted.
#[test]
fn large_files_are_cut_and_left_alone() {
    let said: Vec<Said> = (0..4000).map(|i| ((i % 200) as u8, 0, i * i, i / 100, 1)).collect();
    let mut options = options(0);
    options.history.row_group_rows = 200;
    let world = published_in(&said, 100);
    Housekeeper::open(world.data()).unwrap().run(&options, 0).unwrap();
    let [one] = &world.files()[..] else { panic!("{:?}", world.files()) };
    options.history.roll_bytes = ByteSize(one.bytes / 3);
    let world = published_in(&said, 100);
    let mut keeper = Housekeeper::open(world.data()).unwrap();
    let done = keeper.run(&options, 0).unwrap();
    assert!(done.merged == 40 && (2..5).contains(&done.into), "{done:?}");
    assert_eq!(keeper.run(&options, 0).unwrap(), Done::default());
    let mut files = world.files();
    files.sort_by_key(|f| f.path.rsplit('-').next().unwrap().trim_end_matches(".parquet").parse::<u64>().unwrap());
    let all = world.said(&files);
    assert!(is_sorted_by_name(&all) && all.len() == 4000);
    assert_eq!(world.state(99), fold(&said, 99));
}

/// As files are sorted: the key is text.
fn is_sorted_by_name(said: &[Said]) -> bool {
    said.is_sorted_by_key(|s| (format!("v{}", s.0), s.1, s.3))
}
