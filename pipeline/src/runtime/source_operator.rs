//! The source operator of a worker: decodes the chunks that the source thread hands it, and ends its epochs.
//!
//! ```text
//!  source thread ──ToWorker──► decode ─┬─► batches  (readings by the worker that owns the vehicle)
//!                                      ├─► payloads (whole trips)
//!                                      ├─► control  (documents; on the first worker)
//!                                      ├─► clocks   (largest event time by partition)
//!                                      ├─► epochs   (wall time, idle partitions, the end)
//!                                      └─► intake   (counts and rejects)
//! ```

use crate::source::{Chunk, ToWorker};
use crossbeam_channel::{Receiver, TryRecvError};
use drivetrain_operators::flow::Time;
use drivetrain_operators::flow::sequence::{Mark, Routed, owner_of};
use drivetrain_schemas::control::ControlChange;
use drivetrain_schemas::decode::Decoder;
use drivetrain_schemas::reading::{Accept, Head, IntakeCounts, Interned, Origin, ReadingBatch, Reject, TripPayload};
use std::sync::Arc;
use std::time::Duration;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, StreamVec};

/// How many messages are handled before the worker's other operators get their turn.
const BURST: usize = 2;
/// How long an idle source waits before it looks again; short beside an epoch (20 ms).
const NAP: Duration = Duration::from_micros(500);

/// What the operator needs.
pub struct Feed {
    pub receiver: Receiver<ToWorker>,
    /// One a source, by its index.
    pub decoders: Vec<Decoder>,
    pub worker: u64,
    pub workers: u64,
    /// Signals in the catalogue.
    pub width: usize,
    /// After a restart: the control documents that were known at the checkpoint. They come in epoch 0, before all others.
    pub recalled: Vec<ControlChange>,
}

/// What became of records: counts of an origin, and those that could not be used.
#[derive(Clone, Debug)]
pub struct Intake {
    pub counts: Vec<(Arc<Origin>, IntakeCounts)>,
    pub rejects: Vec<Reject>,
}

/// The operator's outputs.
pub struct Input<'scope> {
    pub batches: StreamVec<'scope, Time, Routed>,
    pub payloads: StreamVec<'scope, Time, TripPayload>,
    pub control: StreamVec<'scope, Time, ControlChange>,
    pub clocks: StreamVec<'scope, Time, Mark>,
    pub epochs: StreamVec<'scope, Time, Mark>,
    pub intake: StreamVec<'scope, Time, Intake>,
}

/// Builds the operator. It ends when the channel is closed.
pub fn source<'scope>(scope: Scope<'scope, Time>, feed: Feed) -> Input<'scope> {
    let mut builder = OperatorBuilder::new("source".to_string(), scope);
    let (batches, batches_stream) = builder.new_output::<Vec<Routed>>();
    let (payloads, payloads_stream) = builder.new_output::<Vec<TripPayload>>();
    let (control, control_stream) = builder.new_output::<Vec<ControlChange>>();
    let (clocks, clocks_stream) = builder.new_output::<Vec<Mark>>();
    let (epochs, epochs_stream) = builder.new_output::<Vec<Mark>>();
    let (intake, intake_stream) = builder.new_output::<Vec<Intake>>();
    let (mut batches, mut payloads) = (OutputBuilder::from(batches), OutputBuilder::from(payloads));
    let (mut control, mut clocks) = (OutputBuilder::from(control), OutputBuilder::from(clocks));
    let (mut epochs, mut intake) = (OutputBuilder::from(epochs), OutputBuilder::from(intake));
    let activator = scope.activator_for(builder.operator_info().address);
    builder.build(move |capabilities| {
        let mut capabilities: Option<Vec<Capability<Time>>> = Some(capabilities);
        let Feed { receiver, mut decoders, worker, workers, width, mut recalled } = feed;
        let mut serial = 0;
        move |_frontiers| {
            let (mut batches, mut payloads) = (batches.activate(), payloads.activate());
            let (mut control, mut clocks) = (control.activate(), clocks.activate());
            let (mut epochs, mut intake) = (epochs.activate(), intake.activate());
            if let Some(held) = capabilities.as_ref().filter(|_| !recalled.is_empty()) {
                control.session(&held[2]).give_iterator(std::mem::take(&mut recalled).into_iter());
            }
            for _ in 0..BURST {
                let Some(held) = capabilities.as_mut() else { return };
                match receiver.try_recv() {
                    Ok(ToWorker::Chunk { epoch, chunk }) => {
                        advance(held, epoch);
                        let Some(decoder) = decoders.get_mut(usize::from(chunk.source)) else { continue };
                        serial += 1;
                        let decoded = decode(decoder, &chunk, serial, workers, width);
                        batches.session(&held[0]).give_iterator(decoded.routed.into_iter());
                        payloads.session(&held[1]).give_iterator(decoded.payloads.into_iter());
                        if let Some(clock) = decoded.clock {
                            clocks.session(&held[3]).give(Mark::Clock { partition: chunk.partition, clock });
                        }
                        let counts = vec![(chunk.origin, decoded.counts)];
                        intake.session(&held[5]).give(Intake { counts, rejects: decoded.rejects });
                    }
                    Ok(ToWorker::Control { epoch, changes, rejects }) => {
                        advance(held, epoch);
                        if worker == 0 {
                            control.session(&held[2]).give_iterator(changes.into_iter());
                            intake.session(&held[5]).give(Intake { counts: Vec::new(), rejects });
                        }
                    }
                    Ok(ToWorker::Epoch { epoch, wall, idle, flush, end, checkpoint }) => {
                        advance(held, epoch);
                        epochs.session(&held[4]).give(Mark::Epoch { wall, idle, flush, end, checkpoint });
                        advance(held, epoch + 1);
                    }
                    Err(TryRecvError::Empty) => {
                        activator.activate_after(NAP);
                        return;
                    }
                    Err(TryRecvError::Disconnected) => {
                        capabilities = None;
                        return;
                    }
                }
            }
            activator.activate();
        }
    });
    Input {
        batches: batches_stream,
        payloads: payloads_stream,
        control: control_stream,
        clocks: clocks_stream,
        epochs: epochs_stream,
        intake: intake_stream,
    }
}

/// Lets go of the epochs before this one: after a restart the first is not 0.
fn advance(held: &mut [Capability<Time>], epoch: i64) {
    held.iter_mut().filter(|c| *c.time() < epoch as Time).for_each(|c| c.downgrade(&(epoch as Time)));
}

/// What a chunk came to.
struct Decoded {
    routed: Vec<Routed>,
    payloads: Vec<TripPayload>,
    rejects: Vec<Reject>,
    counts: IntakeCounts,
    clock: Option<i64>,
}

/// `serial`: another one for each chunk.
fn decode(decoder: &mut Decoder, chunk: &Chunk, serial: u64, workers: u64, width: usize) -> Decoded {
    // Vehicles fall to the workers about evenly.
    let share = if workers > 1 { chunk.len() / workers as usize * 9 / 8 + 8 } else { chunk.len() };
    let mut router = Router {
        batches: (0..workers).map(|_| ReadingBatch::with_capacity(chunk.origin.clone(), width, share)).collect(),
        payloads: Vec::new(),
        rejects: Vec::new(),
        clock: None,
        serial,
    };
    let mut counts = IntakeCounts::default();
    chunk.for_each(|record| decoder.decode_ahead(&record, &mut counts, &mut router));
    decoder.flush(&mut router);
    let routed = router.batches.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty());
    Decoded {
        routed: routed.map(|(worker, batch)| Routed { worker: worker as u64, batch }).collect(),
        payloads: router.payloads,
        rejects: router.rejects,
        counts,
        clock: router.clock,
    }
}

/// Sorts readings by the worker that owns their vehicle.
struct Router {
    batches: Vec<ReadingBatch>,
    payloads: Vec<TripPayload>,
    rejects: Vec<Reject>,
    clock: Option<i64>,
    serial: u64,
}

impl Accept for Router {
    fn reading(&mut self, head: Head, interned: Interned<'_>, values: &[i64], invalid: &[u16]) {
        self.clock = self.clock.max(Some(head.at));
        let worker = owner_of(interned.hash, self.batches.len() as u64) as usize;
        self.batches[worker].push_interned(head, interned, self.serial, values);
        self.batches[worker].mark_invalid(invalid);
    }

    fn trip(&mut self, trip: TripPayload) {
        self.payloads.push(trip);
    }

    fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}
