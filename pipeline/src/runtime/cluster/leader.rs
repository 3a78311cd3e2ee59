//! The leader's side: it gathers the followers, hands them their input, and takes what their workers say.

use super::assemble::Assembly;
use super::fate::Fate;
use super::hello::Identity;
use super::network::Network;
use super::wire::{EpochMark, FrameReader, FrameWriter, NoMessage, ToFollower, ToLeader};
use super::{ClusterError, Shape};
use crate::clock::wall_micros;
use crate::source::{RemoteChunk, ToWorker};
use crossbeam_channel::{Receiver, RecvError, Select, Sender};
use drivetrain_operators::flow::keep::Restored;
use drivetrain_sinks::message::Message;
use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

/// A cluster that has come together, at its leader.
pub(in crate::runtime) struct Leader {
    fate: Arc<Fate>,
    workers: usize,
    controls: Vec<JoinHandle<()>>,
    links: BTreeMap<usize, TcpStream>,
    data: Option<Vec<Option<TcpStream>>>,
}

/// What a worker of a follower begins with, and where its input comes from.
pub(in crate::runtime) type Remote = (Receiver<ToWorker>, Restored);

impl Leader {
    /// Waits for the followers. `config`: hash of what must be the same everywhere; `workers`: of each process.
    ///
    /// # Errors
    /// When they do not come, or are not of the same job. Those that came have been told.
    pub(in crate::runtime) fn assemble(
        shape: &Shape,
        config: String,
        workers: usize,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self, ClusterError> {
        let fate = Fate::new(shape.clone());
        fate.watch_panics();
        let identity = Identity { shape: shape.clone(), workers, config };
        // Two starts at the same µs by two processes of the same number do not happen.
        let run = (wall_micros().unsigned_abs() << 8) ^ u64::from(std::process::id());
        let assembly = Assembly::new(identity, fate.clone(), stop.clone());
        let connections = assembly.gather(run)?;
        tracing::info!("{} processes with {workers} workers each have come together", shape.processes());
        let (links, data) = (connections.links, Some(connections.data));
        Ok(Self { fate, workers, controls: connections.controls, links, data })
    }

    /// Over all processes.
    pub(in crate::runtime) fn total_workers(&self) -> usize {
        self.workers * (self.links.len() + 1)
    }

    /// Hands the followers what they begin with, and from here on their input. `remotes`: their workers in order.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub(in crate::runtime) fn begin(
        &mut self,
        remotes: Vec<Remote>,
        after: i64,
        committer: &Sender<Message>,
    ) -> Result<Network, ClusterError> {
        let mut remotes = remotes.into_iter();
        for (process, stream) in std::mem::take(&mut self.links) {
            let first = process * self.workers;
            let workers: Vec<Remote> = remotes.by_ref().take(self.workers).collect();
            let connection = |error| ClusterError::Connection { peer: self.fate.peer(process), error };
            let from = stream.try_clone().map_err(connection)?;
            let (fate, sender) = (self.fate.clone(), committer.clone());
            spawn("link-in", move || take(&fate, process, FrameReader::new(from), &sender))?;
            let fate = self.fate.clone();
            spawn("link-out", move || {
                if let Err(error) = give(FrameWriter::new(stream), first, workers, after) {
                    fate.lost(process, &error.to_string());
                }
            })?;
        }
        Ok(Network { process: 0, sockets: self.data.take().unwrap_or_default() })
    }

    /// Everything is done, or has failed: tells the followers and waits until they have heard.
    pub(in crate::runtime) fn end(self, end: Result<(), String>) {
        self.fate.conclude(end);
        self.controls.into_iter().for_each(|control| drop(control.join()));
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), ClusterError> {
    // Nobody joins them: they end with their connection, at the latest with the process.
    std::thread::Builder::new().name(name.into()).spawn(run).map(drop).map_err(ClusterError::Thread)
}

/// Sends what the workers of a follower begin with, then their input until all of it has ended.
fn give(mut to: FrameWriter<TcpStream>, first: usize, workers: Vec<Remote>, after: i64) -> io::Result<()> {
    let mut inputs = Vec::with_capacity(workers.len());
    for (worker, (input, restored)) in workers.into_iter().enumerate() {
        let worker = first + worker;
        for (operator, blocks) in restored.into_parts() {
            for records in blocks {
                to.write(&ToFollower::Restore { worker, operator: operator.clone(), records })?;
            }
        }
        inputs.push((worker, input));
    }
    to.write(&ToFollower::Begin { after })?;
    while !inputs.is_empty() {
        let (place, came) = next(&inputs, &mut to)?;
        let worker = inputs.get(place).map_or(first, |(worker, _)| *worker);
        match came {
            Ok(message) => to.write(&framed(worker, message)?)?,
            Err(RecvError) => {
                inputs.remove(place);
                to.write(&ToFollower::Ended { worker })?;
            }
        }
    }
    to.flush()
}

/// The next message of any worker; what was written goes out before there is a wait for it.
fn next(
    inputs: &[(usize, Receiver<ToWorker>)],
    to: &mut FrameWriter<TcpStream>,
) -> io::Result<(usize, Result<ToWorker, RecvError>)> {
    let mut select = Select::new();
    for (_, input) in inputs {
        select.recv(input);
    }
    let chosen = match select.try_select() {
        Ok(chosen) => chosen,
        Err(_) => {
            to.flush()?;
            select.select()
        }
    };
    let place = chosen.index();
    match inputs.get(place) {
        Some((_, input)) => Ok((place, chosen.recv(input))),
        None => Err(io::Error::other("no such worker")),
    }
}

fn framed(worker: usize, message: ToWorker) -> io::Result<ToFollower> {
    match message {
        ToWorker::Chunk { epoch, chunk } => {
            let chunk = RemoteChunk::new(&chunk).map_err(io::Error::other)?;
            Ok(ToFollower::Chunk { worker, epoch, chunk })
        }
        ToWorker::Epoch { epoch, wall, idle, flush, end, checkpoint } => {
            Ok(ToFollower::Epoch { worker, mark: EpochMark { epoch, wall, idle, flush, end, checkpoint } })
        }
        ToWorker::Control { .. } => Err(io::Error::other("control changes are for worker 0 only")),
    }
}

/// Hands what a follower's workers say to the committer, until they have ended.
fn take(fate: &Fate, process: usize, mut from: FrameReader<TcpStream>, committer: &Sender<Message>) {
    loop {
        let message = match from.read() {
            Ok(ToLeader::Output { epoch, output }) => Message::Output { epoch, output },
            Ok(ToLeader::Part { epoch, part }) => Message::Part { epoch, part },
            Ok(ToLeader::Parts { epoch, done }) => Message::Parts { epoch, done },
            Ok(ToLeader::Frontier { worker, epoch }) => Message::Frontier { worker, epoch },
            Ok(ToLeader::Failed(problem)) => Message::Failed(problem),
            Ok(ToLeader::Done) => return,
            Err(NoMessage::Lost(error)) => return fate.lost(process, &error.to_string()),
            Err(NoMessage::Garbled(problem)) => {
                fate.fail(&ClusterError::Garbled { peer: fate.peer(process), problem }.to_string())
            }
        };
        // The committer is gone only when it has failed; its error is reported by whoever joins it.
        drop(committer.send(message));
    }
}
