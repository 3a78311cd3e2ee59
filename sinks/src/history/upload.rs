//! Takes closed files to the store's staging, between the encoder and the committer.
//!
//! ```text
//!  encoder ──Closed──► (8 at most) ──► upload ──Closed──► committer
//! ```
//!
//! What comes out is durable in the store, in the order in which it went in; the local file is gone. The encoder goes on
//! meanwhile, and waits when the store is that far behind.

use super::file::{local_staged, staged};
use super::{Closed, Files, HistoryError};
use crate::failpoint;
use crate::store::{Remote, forget};
use crossbeam_channel::{Receiver, Sender};
use std::path::PathBuf;

/// Closed files' messages that wait.
pub(super) const QUEUE: usize = 8;

pub(super) struct Uploader {
    pub(super) remote: Remote,
    pub(super) data: PathBuf,
    pub(super) generation: u64,
}

impl Uploader {
    /// Serves until the encoder or the committer has gone. An error is told and ends the thread.
    pub(super) fn run(self, inbox: &Receiver<Files>, outbox: &Sender<Files>) {
        while let Ok(closed) = inbox.recv() {
            let done = closed.and_then(|closed| self.upload(&closed).map(|()| closed));
            let failed = done.is_err();
            if outbox.send(done).is_err() || failed {
                return;
            }
        }
    }

    fn upload(&self, closed: &Closed) -> Result<(), HistoryError> {
        let local = |path: &str| local_staged(&self.data, self.generation, path);
        let pair = |path: &String| (local(path), staged(self.generation, path));
        let paths: Vec<String> = closed.files.iter().map(|f| f.path.clone()).collect();
        self.remote.upload(paths.iter().map(pair).collect())?;
        failpoint::hit("history.closed")?;
        paths.iter().for_each(|path| forget(&local(path)));
        Ok(())
    }
}
