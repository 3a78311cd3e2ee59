//! The outlet without Kafka: topics as local logs, the progress log as a file. See [`crate::live`] for the order.

use super::log::{SMALL, TopicLog};
use crate::failpoint;
use crate::files::{FileError, list};
use crate::outlet::{DeadLetter, LiveOutput, Outlet, OutletError, quoted};
use crate::progress::data::{DataDir, LIVE};
use crate::progress::local::LocalLog;
use crate::progress::{Claim, ProgressEntry, ProgressError, ProgressLog, ProgressRecord};
use drivetrain_schemas::document::base64;
use drivetrain_schemas::table::{DEAD_LETTER, Topic};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Writes below the data directory.
#[derive(Debug)]
pub struct LocalOutlet {
    live: PathBuf,
    progress: LocalLog,
    topics: BTreeMap<Topic, TopicLog>,
    dead_letter: Option<TopicLog>,
    /// Garbage of a topic up to this many bytes stays.
    small: u64,
}

impl LocalOutlet {
    /// Opens the progress log. The topics are opened by [`Outlet::resume`].
    pub fn open(data: &DataDir) -> Result<Self, OutletError> {
        let progress = LocalLog::open(data.path())?;
        let small = failpoint::threshold(SMALL, 0);
        Ok(Self { live: data.path().join(LIVE), progress, topics: BTreeMap::new(), dead_letter: None, small })
    }

    /// Compacts and trims from this many bytes of garbage on.
    #[cfg(test)]
    pub(crate) fn with_small(mut self, bytes: u64) -> Self {
        self.progress = self.progress.with_small(bytes);
        self.small = bytes;
        self
    }

    fn topic(&mut self, topic: Topic) -> Result<&mut TopicLog, FileError> {
        Ok(match self.topics.entry(topic) {
            std::collections::btree_map::Entry::Occupied(log) => log.into_mut(),
            std::collections::btree_map::Entry::Vacant(empty) => {
                empty.insert(TopicLog::create(&self.live.join(topic.name()))?.with_small(self.small))
            }
        })
    }

    fn dead_letter(&mut self, letter: &DeadLetter) -> Result<(), FileError> {
        let log = match &mut self.dead_letter {
            Some(log) => log,
            empty => empty.insert(TopicLog::create(&self.live.join(DEAD_LETTER))?),
        };
        log.line(&dead_letter_line(letter));
        Ok(())
    }
}

/// `{"epoch":…,"headers":{…},"payload_base64":…}`; the payload is null for a tombstone.
fn dead_letter_line(letter: &DeadLetter) -> String {
    let headers: Vec<String> =
        letter.headers().iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value))).collect();
    let payload = letter.reject.payload.as_ref().map_or("null".to_string(), |p| quoted(&base64(p)));
    format!("{{\"epoch\":{},\"headers\":{{{}}},\"payload_base64\":{payload}}}", letter.epoch, headers.join(","))
}

impl ProgressLog for LocalOutlet {
    fn claim(&mut self, claim: &Claim) -> Result<(), ProgressError> {
        self.progress.claim(claim)
    }

    fn append(&mut self, record: &ProgressRecord) -> Result<(), ProgressError> {
        self.progress.append(record)
    }

    fn read_all(&self) -> Result<Vec<ProgressEntry>, ProgressError> {
        self.progress.read_all()
    }

    fn trim(&mut self, checkpoint: i64) -> Result<(), ProgressError> {
        self.progress.trim(checkpoint)
    }
}

impl Outlet for LocalOutlet {
    fn resume(&mut self, committed: i64) -> Result<(), OutletError> {
        for name in list(&self.live)? {
            let dir = self.live.join(&name);
            if let Some(topic) = Topic::ALL.into_iter().find(|t| t.name() == name) {
                self.topics.insert(topic, TopicLog::open(&dir, committed, true)?.with_small(self.small));
            } else if name == DEAD_LETTER {
                self.dead_letter = Some(TopicLog::open(&dir, committed, false)?);
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), OutletError> {
        Ok(())
    }

    fn produce(&mut self, output: &LiveOutput) -> Result<(), OutletError> {
        for change in &output.changes {
            self.topic(change.topic)?.put(&change.key, change.value.as_deref(), change.epoch);
        }
        output.dead_letters.iter().try_for_each(|letter| self.dead_letter(letter))?;
        for log in self.topics.values_mut().chain(&mut self.dead_letter) {
            log.flush()?;
            failpoint::hit("produce.between")?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), OutletError> {
        Ok(self.progress.sync()?)
    }

    fn settle(&mut self) -> Result<(), OutletError> {
        for log in self.topics.values_mut() {
            log.compact()?;
        }
        Ok(())
    }
}
