//! The workers of this process: their part of the dataflow, driven until their input has ended.

use super::cluster::Network;
use super::emit::Emit;
use super::source_operator::Feed;
use crate::config::Resolved;
use crate::graph::{self, Plan, Restart};
use crate::source::ToWorker;
use crossbeam_channel::{Receiver, Sender};
use drivetrain_operators::flow::Time;
use drivetrain_operators::flow::keep::{Handing, Keep, Restored};
use drivetrain_schemas::control::ControlChange;
use drivetrain_sinks::checkpoint::{Packer, Part};
use drivetrain_sinks::message::Message;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;
use timely::dataflow::operators::probe;
use timely::worker::Worker;

/// How long a worker with nothing to do sleeps at most.
const PARK: Duration = Duration::from_millis(2);

/// What this process's workers begin with.
pub(super) struct Begin {
    /// Number of its first worker among all workers, and how many they are over all processes.
    pub(super) first: usize,
    pub(super) total: usize,
    /// By worker of this process, as `restored`.
    pub(super) receivers: Vec<Receiver<ToWorker>>,
    pub(super) restored: Vec<Restored>,
    /// The control documents known at the checkpoint; for worker 0, so none in a process that has not this one.
    pub(super) recalled: Vec<ControlChange>,
    /// The checkpoint's epoch; -1 without one.
    pub(super) after: i64,
    /// None: a single process.
    pub(super) network: Option<Network>,
}

/// Runs the workers until their input has ended and everything has been said.
///
/// # Errors
/// When they cannot be started, or the panic of one of them.
pub(super) fn work(resolved: &Resolved, begin: Begin, sender: &Sender<Message>) -> Result<(), String> {
    let Begin { first, total, receivers, restored, mut recalled, after, network } = begin;
    let locals = receivers.len();
    let keeps = resolved.epochs.checkpoint_every.is_some();
    let packer = keeps.then(|| Packer::start(sender.clone())).transpose().map_err(|e| format!("a thread: {e}"))?;
    let plan = Plan {
        catalogue: resolved.catalogue.clone(),
        kernels: resolved.kernels.clone(),
        options: resolved.state_options,
        policy: resolved.policy.clone(),
    };
    let feeds: Vec<Option<(Feed, Restored)>> = receivers
        .into_iter()
        .zip(restored)
        .enumerate()
        .map(|(worker, (receiver, restored))| {
            let feed = Feed {
                receiver,
                decoders: resolved.decoders(),
                worker: (first + worker) as u64,
                workers: total as u64,
                width: resolved.catalogue.width(),
                // The first worker's, as all control changes are.
                recalled: std::mem::take(&mut recalled),
            };
            Some((feed, restored))
        })
        .collect();
    let feeds = Mutex::new(feeds);
    let emit = Emit { sender: sender.clone(), catalogue: plan.catalogue.clone(), kernels: plan.kernels.clone(), after };
    let emit = Mutex::new(emit);
    let (builders, others) = match network {
        Some(network) => network.build(locals)?,
        None if locals == 1 => timely::CommunicationConfig::Thread.try_build()?,
        None => timely::CommunicationConfig::Process(locals).try_build()?,
    };
    let mut config = timely::WorkerConfig::default();
    differential_dataflow::configure(&mut config, &differential_dataflow::Config { idle_merge_effort: Some(1000) });
    let guards = timely::execute::execute_from(builders, others, config, move |worker| {
        let index = worker.index();
        let feed = feeds.lock().ok().and_then(|mut feeds| feeds.get_mut(index - first).and_then(Option::take));
        let emit = emit.lock().ok().map(|emit| emit.clone());
        if let (Some((feed, restored)), Some(emit)) = (feed, emit) {
            let sender = emit.sender.clone();
            let mut restart =
                Restart { restored, keep: packer.clone().map(|packer| keep(index, sender.clone(), packer)) };
            let finished = graph::build(worker, &plan, feed, emit, &mut restart);
            if let Some(problem) = restart.restored.problem() {
                let problem = format!("the checkpoint cannot be read: {problem}");
                drop(sender.send(Message::Failed(problem)));
            }
            drive(worker, &finished, &sender);
        }
    })?;
    let failed = guards.join().into_iter().find_map(Result::err);
    failed.map_or(Ok(()), Err)
}

/// Sends what the operators of a worker keep to the committer, by way of the packer: no epoch waits for a part to be packed.
fn keep(worker: usize, sender: Sender<Message>, packer: Packer) -> Keep {
    Rc::new(move |epoch, operator, handing| {
        let epoch = epoch as i64;
        // The committer is gone only when it has failed; its error is reported by whoever joins it.
        let begun = || drop(sender.send(Message::Parts { epoch, done: false }));
        match handing {
            Handing::Begun => begun(),
            // Open by itself, too: most operators hand over within their epoch, and say neither Begun nor Done.
            Handing::Part(records) => {
                begun();
                packer.part(epoch, Part { operator: operator.to_string(), worker, records });
                packer.done(epoch);
            }
            Handing::Done => packer.done(epoch),
        }
    })
}

/// Steps a worker and tells the committer which epochs it has finished.
fn drive(worker: &mut Worker, finished: &probe::Handle<Time>, sender: &Sender<Message>) {
    let index = worker.index();
    let mut told = 0;
    loop {
        worker.step_or_park(Some(PARK));
        let frontier = finished.with_frontier(|f| f.first().copied());
        let epoch = frontier.map_or(i64::MAX, |f| f as i64);
        if epoch > told {
            told = epoch;
            if sender.send(Message::Frontier { worker: index, epoch }).is_err() {
                return;
            }
        }
        if epoch == i64::MAX {
            return;
        }
    }
}
