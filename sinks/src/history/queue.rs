//! What waits for the history's thread, bounded by its size: while a row group is written, commits go on.

use super::{Command, EpochRows};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use drivetrain_schemas::reading::Head;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes from which on no further epoch is taken. One is, however large, when nothing waits.
pub(super) const MOST: usize = 16 << 20;

/// About what a row takes while it waits, in bytes.
const ROW: usize = 160;

/// What waits, in bytes; None: nobody takes it any more.
#[derive(Debug)]
struct Level {
    waiting: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Level {
    fn lock(&self) -> MutexGuard<'_, Option<usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The committer's end.
#[derive(Debug)]
pub(super) struct Feeder {
    commands: Sender<(Command, usize)>,
    level: Arc<Level>,
}

/// The thread's end. Dropping it lets nobody wait any more.
#[derive(Debug)]
pub(super) struct Inbox {
    commands: Receiver<(Command, usize)>,
    level: Arc<Level>,
}

pub(super) fn queue() -> (Feeder, Inbox) {
    let (sender, receiver) = unbounded();
    let level = Arc::new(Level { waiting: Mutex::new(Some(0)), changed: Condvar::new() });
    (Feeder { commands: sender, level: level.clone() }, Inbox { commands: receiver, level })
}

fn size(command: &Command) -> usize {
    match command {
        Command::Add(EpochRows { rows, readings, .. }) => {
            let rows: usize = rows.iter().map(|(_, rows)| rows.len() * ROW).sum();
            let of = |width: usize| size_of::<Head>() + 8 * width;
            rows + readings.iter().map(|(batch, _)| batch.len() * of(batch.width)).sum::<usize>()
        }
        Command::Roll | Command::Drain => 0,
    }
}

impl Feeder {
    /// Waits while too much waits already. False: the thread has ended.
    pub(super) fn send(&self, command: Command) -> bool {
        let size = size(&command);
        let mut level = self.level.lock();
        while level.is_some_and(|waiting| waiting > 0 && waiting + size > MOST) {
            level = self.level.changed.wait(level).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(waiting) = level.as_mut() else { return false };
        *waiting += size;
        drop(level);
        self.commands.send((command, size)).is_ok()
    }
}

impl Inbox {
    pub(super) fn recv_timeout(&self, patience: Duration) -> Result<Command, RecvTimeoutError> {
        let (command, size) = self.commands.recv_timeout(patience)?;
        if let Some(waiting) = self.level.lock().as_mut() {
            *waiting -= size;
        }
        self.level.changed.notify_one();
        Ok(command)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        *self.level.lock() = None;
        self.level.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivetrain_schemas::row::Row;
    use drivetrain_schemas::table::TableId;

    fn epoch(epoch: i64, rows: usize) -> Command {
        let row = || (Row::new(&[]), 1);
        let rows = vec![(TableId::Windows, (0..rows).map(|_| row()).collect())];
        Command::Add(EpochRows { epoch, rows, readings: Vec::new() })
    }

    /// Whether sending is done within half a second.
    fn is_sent(feeder: &Arc<Feeder>, command: Command) -> Option<bool> {
        let (done, result) = unbounded();
        let feeder = feeder.clone();
        std::thread::spawn(move || done.send(feeder.send(command)));
        result.recv_timeout(Duration::from_millis(500)).ok()
    }

    #[test]
    fn small_epochs_do_not_wait_and_large_ones_do() {
        let (feeder, inbox) = queue();
        let feeder = Arc::new(feeder);
        assert!((0..1000).all(|n| feeder.send(epoch(n, 50))));
        let large = MOST / ROW;
        assert_eq!(is_sent(&feeder, epoch(1000, large)), None, "it waits");
        for n in 0..1000 {
            let Ok(Command::Add(rows)) = inbox.recv_timeout(Duration::from_secs(5)) else { panic!("it is there") };
            assert_eq!(rows.epoch, n);
        }
        // Alone it may go, and so it has.
        assert!(matches!(inbox.recv_timeout(Duration::from_secs(5)), Ok(Command::Add(rows)) if rows.epoch == 1000));
        assert_eq!(is_sent(&feeder, epoch(1001, 2 * large)), Some(true), "nothing waits");
        assert_eq!(is_sent(&feeder, epoch(1002, 1)), None, "it waits");
        drop(inbox);
        assert_eq!(is_sent(&feeder, epoch(1003, 2 * large)), Some(false), "the thread has ended");
    }
}
