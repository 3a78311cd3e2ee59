//! The history's thread: fills buffers, writes row groups, closes files that are due.

use super::buffer::{Partition, by_date, date_of};
use super::config::{HistoryConfig, KeepReadings};
use super::file::{OpenFile, Place};
use super::queue::Inbox;
use super::{Closed, Command, DateKey, EpochRows, HistoryError, Published};
use crate::progress::FileEntry;
use crossbeam_channel::{RecvTimeoutError, Sender};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::table::{Table, TableId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

type PartitionKey = (TableId, DateKey);

pub(super) struct Encoder {
    place: Place,
    catalogue: Arc<Catalogue>,
    config: HistoryConfig,
    published: Published,
    tables: BTreeMap<TableId, Table>,
    partitions: BTreeMap<PartitionKey, Partition>,
    /// Bytes of all waiting rows.
    waiting: u64,
    open_files: usize,
    next_seq: u64,
    /// The newest epoch handed over; -1 before the first.
    handed: i64,
    last_row: Instant,
}

impl Encoder {
    pub(super) fn new(place: Place, catalogue: Arc<Catalogue>, config: HistoryConfig, published: Published) -> Self {
        let tables = TableId::ALL.map(|id| (id, Table::new(id, &catalogue))).into();
        Self {
            place,
            catalogue,
            config,
            published,
            tables,
            partitions: BTreeMap::new(),
            waiting: 0,
            open_files: 0,
            next_seq: 0,
            handed: -1,
            last_row: Instant::now(),
        }
    }

    /// Serves commands until the owner goes away or asks to drain. An error is told and ends the thread.
    pub(super) fn run(mut self, inbox: &Inbox, outbox: &Sender<Result<Closed, HistoryError>>) {
        loop {
            let (result, last) = match inbox.recv_timeout(self.patience()) {
                Ok(Command::Add(rows)) => (self.add(rows).and_then(|files| self.due(files)), false),
                Ok(Command::Roll) => (self.close_all(), false),
                Ok(Command::Drain) => (self.close_all(), true),
                Err(RecvTimeoutError::Timeout) => (self.due(Vec::new()), false),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let failed = result.is_err();
            let told = match result {
                Ok(files) if files.is_empty() && !last => true,
                Ok(files) => outbox.send(Ok(Closed { files, history_epoch: self.history_epoch() })).is_ok(),
                Err(e) => outbox.send(Err(e)).is_ok(),
            };
            if last || failed || !told {
                return;
            }
        }
    }

    /// How long nothing can become due.
    fn patience(&self) -> Duration {
        let spans = self.config.roll_after.duration().min(self.config.idle_after.duration());
        (spans / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    /// Every row up to this epoch is in a closed file.
    fn history_epoch(&self) -> i64 {
        let oldest = self.partitions.values().map(Partition::oldest).min().unwrap_or(i64::MAX);
        self.handed.min(oldest.saturating_sub(1))
    }

    /// Takes an epoch in. Returns files that had to be closed for want of room.
    fn add(&mut self, input: EpochRows) -> Result<Vec<FileEntry>, HistoryError> {
        let now = Instant::now();
        let epoch = input.epoch;
        self.handed = self.handed.max(epoch);
        for (table, rows) in input.rows {
            let date = self.tables.get(&table).and_then(|t| t.date.and_then(|d| t.column(d)));
            for (row, diff) in rows {
                let key = (table, date_of(&row, date));
                if self.published.has(key, epoch) {
                    continue;
                }
                self.waiting += self.partition(key, now).push_row(row, epoch, diff);
                self.last_row = now;
            }
        }
        if self.config.readings == KeepReadings::All {
            for (batch, diff) in &input.readings {
                for (date, part) in by_date(batch, epoch, *diff) {
                    let key = (TableId::Readings, date);
                    if self.published.has(key, epoch) {
                        continue;
                    }
                    self.waiting += self.partition(key, now).push_readings(part);
                    self.last_row = now;
                }
            }
        }
        let mut files = Vec::new();
        let full = |p: &Partition| p.reading_rows.max(p.rows.len()) >= self.config.row_group_rows;
        let full: Vec<PartitionKey> = self.partitions.iter().filter(|(_, p)| full(p)).map(|(k, _)| *k).collect();
        for key in full {
            self.write_group(key, &mut files)?;
        }
        while self.waiting > self.config.buffer.0 {
            let largest = self.partitions.iter().max_by_key(|(_, p)| p.bytes).map(|(k, _)| *k);
            let Some(key) = largest else { break };
            self.write_group(key, &mut files)?;
        }
        Ok(files)
    }

    fn partition(&mut self, key: PartitionKey, now: Instant) -> &mut Partition {
        self.partitions.entry(key).or_insert_with(|| Partition::new(now))
    }

    /// Closes the files that are due: full, old, or all when nothing comes any more.
    fn due(&mut self, mut files: Vec<FileEntry>) -> Result<Vec<FileEntry>, HistoryError> {
        let now = Instant::now();
        let idle = now.duration_since(self.last_row) >= self.config.idle_after.duration();
        let (age, size) = (self.config.roll_after.duration(), self.config.roll_bytes.0);
        let due = |p: &Partition| {
            idle || now.duration_since(p.since) >= age || p.file.as_ref().is_some_and(|f| f.bytes() >= size)
        };
        let keys: Vec<PartitionKey> = self.partitions.iter().filter(|(_, p)| due(p)).map(|(k, _)| *k).collect();
        for key in keys {
            self.close(key, &mut files)?;
        }
        Ok(files)
    }

    fn close_all(&mut self) -> Result<Vec<FileEntry>, HistoryError> {
        let mut files = Vec::new();
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        for key in keys {
            self.close(key, &mut files)?;
        }
        Ok(files)
    }

    /// Writes what waits in a partition as a row group.
    fn write_group(&mut self, key: PartitionKey, files: &mut Vec<FileEntry>) -> Result<(), HistoryError> {
        let (Some(table), Some(partition)) = (self.tables.get(&key.0), self.partitions.get_mut(&key)) else {
            return Ok(());
        };
        if partition.is_empty() {
            return Ok(());
        }
        self.waiting = self.waiting.saturating_sub(partition.bytes);
        let Some((batch, stats)) = partition.take(table, &self.catalogue)? else { return Ok(()) };
        if partition.file.is_none() {
            let file = OpenFile::create(&self.place, table, key.1, self.next_seq, &self.config)?;
            partition.file = Some(file);
            self.next_seq += 1;
            self.open_files += 1;
        }
        if let Some(file) = &mut partition.file {
            file.write(&batch, stats)?;
        }
        while self.open_files > self.config.max_open_files {
            let open = self.partitions.iter().filter_map(|(k, p)| p.file.as_ref().map(|f| (f.seq, *k)));
            let Some((_, oldest)) = open.min() else { break };
            self.close_file(oldest, files)?;
        }
        Ok(())
    }

    /// Writes what waits in a partition and closes its file; the partition is forgotten.
    fn close(&mut self, key: PartitionKey, files: &mut Vec<FileEntry>) -> Result<(), HistoryError> {
        self.write_group(key, files)?;
        self.close_file(key, files)?;
        self.partitions.remove(&key);
        Ok(())
    }

    fn close_file(&mut self, key: PartitionKey, files: &mut Vec<FileEntry>) -> Result<(), HistoryError> {
        let Some(partition) = self.partitions.get_mut(&key) else { return Ok(()) };
        if let Some(file) = partition.file.take() {
            self.open_files -= 1;
            files.push(file.finish()?);
            partition.since = Instant::now();
        }
        Ok(())
    }
}
