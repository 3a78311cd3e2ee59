//! A follower: workers without a source, a committer or a data directory.

use super::assemble::{Assembly, Connections};
use super::fate::Fate;
use super::hello::Identity;
use super::network::Network;
use super::wire::{EpochMark, FrameReader, FrameWriter, NoMessage, ToFollower, ToLeader};
use super::{ClusterError, Shape};
use crate::config::Resolved;
use crate::runtime::work::{Begin, work};
use crate::runtime::{JobError, WORKER_QUEUE};
use crate::source::ToWorker;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use drivetrain_operators::flow::keep::Restored;
use drivetrain_schemas::records::Records;
use drivetrain_sinks::message::Message;
use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

/// Messages that wait for the link; as many as wait for the committer of a single process.
const OUTBOX: usize = 1024;

/// Computes for the leader until it says that the job has ended well.
///
/// # Errors
/// When the processes do not come together, or this one's workers fail; the leader has been told. When another process
/// fails or is gone, this one ends here and now.
pub(in crate::runtime) fn follow(
    shape: &Shape,
    resolved: &Resolved,
    config: String,
    workers: usize,
    stop: &Arc<AtomicBool>,
) -> Result<(), JobError> {
    let fate = Fate::new(shape.clone());
    fate.watch_panics();
    let identity = Identity { shape: shape.clone(), workers, config };
    let connections = Assembly::new(identity, fate.clone(), stop.clone()).join()?;
    let Connections { mut controls, links, data } = connections;
    let network = Network { process: shape.process, sockets: data };
    let result = compute(&fate, shape, resolved, workers, links, network);
    if let Err(error) = &result {
        fate.conclude(if is_stop(error) { Ok(()) } else { Err(error.to_string()) });
    }
    // The leader still commits; its word ends the thread, or the process.
    controls.drain(..).for_each(|control| drop(control.join()));
    result
}

fn is_stop(error: &JobError) -> bool {
    matches!(error, JobError::Cluster(ClusterError::Stopped))
}

fn compute(
    fate: &Arc<Fate>,
    shape: &Shape,
    resolved: &Resolved,
    workers: usize,
    mut links: BTreeMap<usize, TcpStream>,
    network: Network,
) -> Result<(), JobError> {
    let connection = |error| ClusterError::Connection { peer: fate.peer(0), error };
    let link = links.remove(&0).ok_or_else(|| connection(io::ErrorKind::NotConnected.into()))?;
    let first = shape.process * workers;
    let mut from = FrameReader::new(link.try_clone().map_err(connection)?);
    let (restored, after) = beginning(fate, &mut from, first, workers)?;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded::<ToWorker>(WORKER_QUEUE)).unzip();
    let (said, outbox) = bounded::<Message>(OUTBOX);
    let input = {
        let fate = fate.clone();
        spawn("link-in", move || take(&fate, from, first, senders.into_iter().map(Some).collect()))?
    };
    let output = {
        let fate = fate.clone();
        spawn("link-out", move || {
            if let Err(error) = give(FrameWriter::new(link), &outbox) {
                fate.lost(0, &error.to_string());
            }
        })?
    };
    let total = workers * shape.processes();
    let begin = Begin { first, total, receivers, restored, recalled: Vec::new(), after, network: Some(network) };
    work(resolved, begin, &said).map_err(JobError::Worker)?;
    drop(said);
    drop(output.join());
    drop(input.join());
    Ok(())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ClusterError> {
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(ClusterError::Thread)
}

/// What this process's workers begin with, and the epoch after which.
fn beginning(
    fate: &Fate,
    from: &mut FrameReader<TcpStream>,
    first: usize,
    workers: usize,
) -> Result<(Vec<Restored>, i64), ClusterError> {
    let mut parts: Vec<BTreeMap<String, Vec<Records>>> = vec![BTreeMap::new(); workers];
    loop {
        match from.read() {
            Ok(ToFollower::Restore { worker, operator, records }) => {
                let Some(part) = parts.get_mut(worker.wrapping_sub(first)) else { continue };
                part.entry(operator).or_default().push(records);
            }
            Ok(ToFollower::Begin { after }) => return Ok((parts.into_iter().map(Restored::new).collect(), after)),
            Ok(_) => return Err(garbled(fate, "input before the beginning")),
            Err(NoMessage::Lost(error)) => {
                // Returns when the leader was stopped before the job began.
                fate.lost(0, &error.to_string());
                return Err(ClusterError::Stopped);
            }
            Err(NoMessage::Garbled(problem)) => return Err(garbled(fate, &problem)),
        }
    }
}

fn garbled(fate: &Fate, problem: &str) -> ClusterError {
    ClusterError::Garbled { peer: fate.peer(0), problem: problem.to_string() }
}

/// Hands the workers their input, until it has ended for all.
fn take(fate: &Fate, mut from: FrameReader<TcpStream>, first: usize, mut workers: Vec<Option<Sender<ToWorker>>>) {
    while workers.iter().any(Option::is_some) {
        let (worker, message) = match from.read() {
            Ok(ToFollower::Chunk { worker, epoch, chunk }) => match chunk.into_chunk() {
                Ok(chunk) => (worker, ToWorker::Chunk { epoch, chunk }),
                Err(problem) => fate.fail(&garbled(fate, &problem).to_string()),
            },
            Ok(ToFollower::Epoch { worker, mark }) => {
                let EpochMark { epoch, wall, idle, flush, end, checkpoint } = mark;
                (worker, ToWorker::Epoch { epoch, wall, idle, flush, end, checkpoint })
            }
            Ok(ToFollower::Ended { worker }) => {
                workers.get_mut(worker.wrapping_sub(first)).into_iter().for_each(|sender| *sender = None);
                continue;
            }
            Ok(ToFollower::Restore { .. } | ToFollower::Begin { .. }) => {
                fate.fail(&garbled(fate, "a second beginning").to_string())
            }
            Err(NoMessage::Lost(error)) => return fate.lost(0, &error.to_string()),
            Err(NoMessage::Garbled(problem)) => fate.fail(&garbled(fate, &problem).to_string()),
        };
        // A worker that has gone has failed; that is reported by whoever joins it.
        if let Some(Some(sender)) = workers.get(worker.wrapping_sub(first)) {
            drop(sender.send(message));
        }
    }
}

/// Sends what the workers say, until they have ended.
fn give(mut to: FrameWriter<TcpStream>, outbox: &Receiver<Message>) -> io::Result<()> {
    loop {
        let message = match outbox.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty) => {
                to.flush()?;
                outbox.recv().ok()
            }
            Err(TryRecvError::Disconnected) => None,
        };
        let framed = match message {
            Some(Message::Output { epoch, output }) => ToLeader::Output { epoch, output },
            Some(Message::Part { epoch, part }) => ToLeader::Part { epoch, part },
            Some(Message::Parts { epoch, done }) => ToLeader::Parts { epoch, done },
            Some(Message::Frontier { worker, epoch }) => ToLeader::Frontier { worker, epoch },
            Some(Message::Failed(problem)) => ToLeader::Failed(problem),
            // No worker says that.
            Some(Message::Ticket(_) | Message::Stop) => continue,
            None => {
                to.write(&ToLeader::Done)?;
                return to.flush();
            }
        };
        to.write(&framed)?;
    }
}
