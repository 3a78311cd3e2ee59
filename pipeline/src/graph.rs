//! The whole dataflow on one page (DESIGN §2). Every operator and region is named as in the picture.
//!
//! ```text
//!  source ─┬─ readings ─► sequence ─┬─ results ───────────────────────────────► history, live
//!          │                ▲       ├─ trips ─────┐
//!          ├─ marks ────────┘       └─ anomalies ─┤
//!          ├─ trip payloads ─► payloads ─ trips ──┼─► relations ─► trips, drivers, fleets ─► history, live
//!          ├─ control ─► documents ───────────────┘
//!          └─ rejects, counts ──────────────────────────────────────────────► history, dead letters
//! ```

use crate::runtime::emit::Emit;
use crate::runtime::source_operator::{Feed, source};
use differential_dataflow::AsCollection;
use drivetrain_operators::config::KernelConfig;
use drivetrain_operators::flow::Time;
use drivetrain_operators::flow::documents::documents;
use drivetrain_operators::flow::keep::{Keep, Restored, kept};
use drivetrain_operators::flow::payloads::payloads;
use drivetrain_operators::flow::relations::{Facts, relations};
use drivetrain_operators::flow::sequence::{StateOptions, sequence};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::control::Document;
use drivetrain_schemas::policy::Policy;
use std::sync::Arc;
use timely::dataflow::operators::vec::{Broadcast, ToStream};
use timely::dataflow::operators::{Concat, probe};
use timely::worker::Worker;

/// What the graph is built from; the same on every worker.
#[derive(Clone)]
pub struct Plan {
    pub catalogue: Arc<Catalogue>,
    pub kernels: Arc<KernelConfig>,
    pub options: StateOptions,
    /// The configuration's policy: it governs where no policy document does.
    pub policy: Policy,
}

/// A collection that a checkpoint keeps.
pub const ANOMALIES: &str = "anomalies";

/// What this worker begins with, and who takes what it keeps; None: no checkpoints.
pub struct Restart {
    pub restored: Restored,
    pub keep: Option<Keep>,
}

/// Builds this worker's part of the dataflow; the handle shows which epochs it has finished.
pub fn build(worker: &mut Worker, plan: &Plan, feed: Feed, emit: Emit, restart: &mut Restart) -> probe::Handle<Time> {
    let Restart { restored, keep } = restart;
    let finished = probe::Handle::new();
    let index = worker.index();
    worker.dataflow_named("drivetrain", |scope| {
        let input = source(scope, feed);

        // The firehose: one touch a reading.
        let epochs = input.epochs;
        let marks = input.clocks.broadcast().concat(epochs.clone());
        let kernels = plan.kernels.clone();
        let sequenced = sequence(scope, input.batches, marks, kernels.clone(), plan.options, restored, keep.clone());
        let payloads = payloads(input.payloads, epochs.clone(), kernels, restored, keep.clone());

        // The configuration's policy holds from epoch 0 on; one worker says so.
        let first = (index == 0).then(|| (Document::Policy(Box::new(plan.policy.clone())), 0, 1));
        let policy = first.to_stream(scope).as_collection();

        // Of the relations, trips and drivers keep what they have for a restart; the others are computed again.
        let trips = sequenced.trips.concat(payloads.trips);
        // Of anomalies only those that are open matter there.
        let open = sequenced.anomalies.filter(|anomaly| anomaly.ended_at.is_none());
        let anomalies = kept(ANOMALIES, open, epochs.clone(), restored.rows(ANOMALIES), keep.clone());

        // The relations: facts that are few and change for many reasons.
        let said = relations(
            Facts { trips, anomalies, documents: documents(input.control).concat(policy) },
            epochs,
            plan.catalogue.clone(),
            plan.kernels.clone(),
            restored,
            keep.clone(),
        );

        // Where results go.
        emit.results(sequenced.results, &finished);
        emit.results(payloads.results, &finished);
        emit.trips(said.trips, &finished);
        emit.drivers(said.drivers, &finished);
        emit.fleets(said.fleets, &finished);
        emit.problems(said.problems, &finished);
        emit.intake(input.intake, &finished);
    });
    finished
}
