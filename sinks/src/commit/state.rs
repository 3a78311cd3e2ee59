//! What the committer itself remembers, as part of a checkpoint: operator `committer`, keyed records, values as JSON.
//!
//! ```text
//!  s              wall time, idle set, when intake was logged, digests
//!  p<origin>      where the origin was: its newest binding
//!  i<origin>      what became of its records: the sums, and what the log has of them
//!  c<kind>/<key>  a control document
//!  r<n>           the control documents of an epoch that cannot be used
//! ```
//!
//! `s` is written each time, the others when they have changed since the last checkpoint. Of bindings and documents only
//! those changes are kept in memory: the source and the operators have the whole.

use super::intake::Intake;
use crate::checkpoint::{self, CheckpointEntry, CheckpointError, Part, Value};
use crate::digest::Digests;
use crate::message::{Binding, Ticket};
use crate::store::Storage;
use drivetrain_schemas::control::{ControlChange, ControlKind, Document};
use drivetrain_schemas::reading::{IntakeCounts, Origin, Reject};
use drivetrain_schemas::records::Records;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The committer among a checkpoint's operators.
pub(crate) const OPERATOR: &str = "committer";

/// The state after an epoch. See the module.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(super) intake: Intake,
    pub(super) digests: Digests,
    idle: Vec<Arc<Origin>>,
    /// Of the newest ticket; `None` before the first.
    wall: Option<i64>,
    positions: BTreeMap<Arc<Origin>, Binding>,
    /// `None`: withdrawn.
    control: BTreeMap<(ControlKind, Arc<str>), Option<Document>>,
    /// By epoch.
    rejects: BTreeMap<i64, Vec<Reject>>,
}

/// Value of `s`.
#[derive(Serialize, Deserialize)]
struct Scalars {
    wall: Option<i64>,
    idle: Vec<Arc<Origin>>,
    since: Option<i64>,
    digests: Digests,
}

/// Value of `i…`.
#[derive(Serialize, Deserialize)]
struct Counts {
    origin: Arc<Origin>,
    sums: IntakeCounts,
    logged: Option<IntakeCounts>,
}

/// A checkpoint's state of the committer, and what in it is for others.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) state: State,
    /// Where each origin was.
    pub(crate) positions: Vec<Binding>,
    /// Each control document that was known, as a change.
    pub(crate) control: Vec<ControlChange>,
    /// Control documents that could not be used.
    pub(crate) rejects: Vec<Reject>,
    pub(crate) idle: Vec<Arc<Origin>>,
    pub(crate) wall: Option<i64>,
}

impl State {
    /// An epoch has passed.
    pub(super) fn pass(&mut self, ticket: &Ticket) {
        self.wall = Some(ticket.wall);
        self.idle.clone_from(&ticket.idle);
        for binding in &ticket.bindings {
            self.positions.insert(binding.origin.clone(), binding.clone());
        }
        for change in &ticket.control {
            self.control.insert((change.kind, change.key.clone()), change.document.clone());
        }
        if !ticket.rejects.is_empty() {
            self.rejects.insert(ticket.epoch, ticket.rejects.clone());
        }
    }

    /// What has changed since the last capture.
    pub(super) fn capture(&mut self) -> Part {
        let mut records = Records::keyed();
        let scalars = Scalars {
            wall: self.wall,
            idle: self.idle.clone(),
            since: self.intake.since,
            digests: self.digests.clone(),
        };
        put(&mut records, b"s", &scalars);
        for (origin, binding) in std::mem::take(&mut self.positions) {
            put(&mut records, &key(b'p', &origin), &binding);
        }
        for origin in std::mem::take(&mut self.intake.changed) {
            let sums = self.intake.sums.get(&origin).copied().unwrap_or_default();
            let logged = self.intake.logged.get(&origin).copied();
            put(&mut records, &key(b'i', &origin), &Counts { origin, sums, logged });
        }
        for ((kind, id), document) in std::mem::take(&mut self.control) {
            let key = format!("c{}/{id}", kind.name()).into_bytes();
            match document {
                Some(document) => put(&mut records, &key, &ControlChange { kind, key: id, document: Some(document) }),
                None => records.remove(&key),
            }
        }
        for (epoch, rejects) in std::mem::take(&mut self.rejects) {
            put(&mut records, format!("r{epoch}").as_bytes(), &rejects);
        }
        Part { operator: OPERATOR.into(), worker: 0, records }
    }

    /// The state of a checkpoint.
    ///
    /// # Errors
    /// When a file is missing or damaged, or holds what is no state of a committer.
    pub(crate) fn load(storage: impl Into<Storage>, entry: &CheckpointEntry) -> Result<Loaded, CheckpointError> {
        let storage = storage.into();
        let mut loaded = Loaded::default();
        let mut wrong: Option<String> = None;
        let mut whole = false;
        checkpoint::load(&storage, entry, OPERATOR, &mut |key, value| {
            whole |= key == b"s";
            if let Err(problem) = loaded.take(key, value) {
                wrong.get_or_insert_with(|| format!("record {:?}: {problem}", String::from_utf8_lossy(key)));
            }
        })?;
        if !whole {
            wrong.get_or_insert_with(|| "its committer has no state".into());
        }
        let file = || entry.files.iter().find(|f| f.operator == OPERATOR).map(|f| storage.place(&f.path));
        match wrong {
            Some(problem) => Err(CheckpointError::Damaged { path: file().unwrap_or_default(), offset: 0, problem }),
            None => Ok(loaded),
        }
    }
}

impl Loaded {
    fn take(&mut self, key: &[u8], value: Value<'_>) -> Result<(), String> {
        let Value::Bytes(value) = value else { return Err("a count where a value belongs".into()) };
        match key.first() {
            Some(b's') => {
                let Scalars { wall, idle, since, digests } = parse(value)?;
                (self.wall, self.idle) = (wall, idle.clone());
                (self.state.wall, self.state.idle) = (wall, idle);
                (self.state.intake.since, self.state.digests) = (since, digests);
            }
            Some(b'p') => self.positions.push(parse(value)?),
            Some(b'c') => self.control.push(parse(value)?),
            Some(b'r') => self.rejects.extend(parse::<Vec<Reject>>(value)?),
            Some(b'i') => {
                let Counts { origin, sums, logged } = parse(value)?;
                self.state.intake.logged.extend(logged.map(|counts| (origin.clone(), counts)));
                self.state.intake.sums.insert(origin, sums);
            }
            _ => return Err("unknown".into()),
        }
        Ok(())
    }
}

fn key(kind: u8, origin: &Origin) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(serde_json::to_vec(origin).unwrap_or_default());
    key
}

fn put<T: Serialize>(records: &mut Records, key: &[u8], value: &T) {
    // Types of our own with text keys: nothing in them can fail.
    records.put(key, |out| _ = serde_json::to_writer(out, value));
}

fn parse<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpointer;
    use crate::digest::Digester;
    use drivetrain_schemas::control::Fleet;

    fn origin(partition: i32) -> Arc<Origin> {
        Arc::new(Origin { source: "s".into(), name: "t\"1".into(), partition })
    }

    fn ticket(epoch: i64, ends: &[(i32, i64)], fleets: &[(&str, bool)]) -> Ticket {
        let bindings = ends.iter().map(|(p, end)| Binding {
            origin: origin(*p),
            topic_id: Some("id".into()),
            start: None,
            end: *end,
            clock: Some(*end * 10),
        });
        let control = fleets.iter().map(|(id, there)| {
            let fleet = Fleet { fleet_id: (*id).into(), parent_id: None, name: Some(format!("at {epoch}")) };
            ControlChange {
                kind: ControlKind::Fleets,
                key: (*id).into(),
                document: there.then_some(Document::Fleet(fleet)),
            }
        });
        let (bindings, control) = (bindings.collect(), control.collect());
        let rejects = if epoch == 1 { Vec::new() } else { vec![reject(epoch)] };
        Ticket { epoch, wall: epoch * 100, bindings, control, rejects, idle: vec![origin(9)], ..Ticket::default() }
    }

    fn reject(position: i64) -> Reject {
        let (reason, payload) = ("bad_document".into(), Some(b"{".to_vec()));
        Reject { origin: origin(0), position, record_time: 7, reason, detail: "why".into(), payload }
    }

    #[test]
    fn what_was_captured_in_steps_is_loaded_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpointer = Checkpointer::start(dir.path(), 1, None).unwrap();
        let mut state = State::default();
        let mut digester = Digester::default();
        let one = IntakeCounts { records: 1, ..IntakeCounts::default() };
        let mut entry = None;
        for (epoch, ticket) in [
            ticket(0, &[(0, 5), (1, 6)], &[("a", true), ("b", true)]),
            ticket(1, &[(1, 7)], &[("b", false), ("c", true)]),
            ticket(2, &[], &[]),
        ]
        .into_iter()
        .enumerate()
        {
            state.intake.add(origin(epoch as i32 % 2), &one);
            state.intake.changes(ticket.wall, epoch != 1);
            digester.change(&mut state.digests, "live/x", epoch as i64, "k", None);
            state.pass(&ticket);
            checkpointer.write(epoch as i64, vec![state.capture().into()]).unwrap();
            entry = checkpointer.drain().unwrap().pop();
        }
        let Loaded { state: loaded, positions, control, rejects, idle, wall } =
            State::load(dir.path(), &entry.unwrap()).unwrap();
        assert_eq!(positions.iter().map(|b| (b.origin.partition, b.end)).collect::<Vec<_>>(), [(0, 5), (1, 7)]);
        assert_eq!(control.iter().map(|c| &*c.key).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(control[1].document, ticket(1, &[], &[("c", true)]).control[0].document);
        assert_eq!((idle, wall), (vec![origin(9)], Some(200)));
        assert_eq!(rejects, [reject(0), reject(2)]);
        assert_eq!(loaded.digests, state.digests);
        assert_eq!(loaded.intake.since, state.intake.since);
        assert_eq!((&loaded.intake.sums, &loaded.intake.logged), (&state.intake.sums, &state.intake.logged));
        assert_eq!(loaded.intake.sums[&origin(0)].records, 2);
    }

    #[test]
    fn a_checkpoint_without_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpointer = Checkpointer::start(dir.path(), 1, None).unwrap();
        let mut records = Records::keyed();
        records.put(b"p", |out| out.extend(b"{}"));
        checkpointer.write(0, vec![Part { operator: OPERATOR.into(), worker: 0, records }.into()]).unwrap();
        let entry = checkpointer.drain().unwrap().pop().unwrap();
        let error = State::load(dir.path(), &entry).unwrap_err().to_string();
        assert!(error.contains("record \"p\"") && error.contains("--fresh"), "{error}");
        let nothing = CheckpointEntry { files: vec![], ..entry };
        assert!(State::load(dir.path(), &nothing).unwrap_err().to_string().contains("has no state"));
    }
}
