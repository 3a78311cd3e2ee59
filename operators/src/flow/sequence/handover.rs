//! What a checkpoint takes of the vehicles, handed over bit by bit behind its epoch, so that no reading waits for all of it.
//!
//! ```text
//!  epoch c, flagged ─► places of all that changed ──next──►  some at each step, when there is nothing else to do
//!                                       └─ a later epoch is about to change one that is due: it is taken before
//! ```
//!
//! Contract: what is handed over of a vehicle is its state after c, whatever has happened meanwhile; each vehicle that changed
//! is handed over once.

use super::slot::{Slot, live};
use crate::flow::Time;
use crate::flow::keep::Handing;
use crate::sequence::VehicleState;
use drivetrain_schemas::records::Records;

/// Bytes from which on a part is handed over (packing it takes two milliseconds), and bytes that are taken in a step.
#[cfg(not(test))]
const SIZES: (usize, usize) = (1 << 19, 1 << 17);
#[cfg(test)]
const SIZES: (usize, usize) = (2000, 1);
const PART: usize = SIZES.0;
const STEP: usize = SIZES.1;

/// Takes what is handed over of a checkpoint: (its epoch, the next word).
pub(super) type Hand<'a> = &'a mut dyn FnMut(Time, Handing);

/// See the module.
pub(super) struct Keeping {
    /// Changed since the last checkpoint; None: nobody asks.
    touched: Option<Vec<u32>>,
    handover: Option<Handover>,
    /// State of a checkpoint that cannot be read.
    pub(super) problem: Option<String>,
}

/// A checkpoint that is being handed over.
struct Handover {
    epoch: Time,
    /// The vehicles that changed; those before `next` have been looked at.
    places: Vec<u32>,
    next: usize,
    kept: Records,
    full: Vec<Records>,
    /// A vehicle could not be read: there is no checkpoint, and its problem ends the job.
    failed: bool,
}

impl Keeping {
    /// `keeps`: checkpoints are taken.
    pub(super) fn new(keeps: bool) -> Self {
        Self { touched: keeps.then(Vec::new), handover: None, problem: None }
    }

    /// The state of a vehicle that is about to change: the checkpoint that is being handed over takes it as it is, and the
    /// next one shall have it, too. None with a problem when it cannot be read.
    #[inline]
    pub(super) fn change<'a>(&mut self, slot: &'a mut Slot, place: u32) -> Option<&'a mut VehicleState> {
        if let Some(handover) = &mut self.handover {
            handover.take(slot, &mut self.problem);
        }
        if let Some(touched) = &mut self.touched
            && !std::mem::replace(&mut slot.touched, true)
        {
            touched.push(place);
        }
        live(slot, self.touched.is_some(), &mut self.problem)
    }

    /// Begins to hand over what has changed since the last checkpoint. What is left of that one goes first. `common` appends
    /// what is known beside the vehicles.
    pub(super) fn begin(&mut self, epoch: Time, slots: &mut [Slot], common: impl FnOnce(&mut Vec<u8>), hand: Hand<'_>) {
        self.hand_over_all(slots, hand);
        let Some(touched) = &mut self.touched else { return };
        let mut places = std::mem::take(touched);
        places.sort_unstable();
        for place in &places {
            let slot = &mut slots[*place as usize];
            (slot.touched, slot.due) = (false, true);
        }
        let mut kept = Records::keyed();
        kept.put(&[], common);
        self.handover = Some(Handover { epoch, places, next: 0, kept, full: Vec::new(), failed: false });
        hand(epoch, Handing::Begun);
    }

    /// Hands over some more; true: there is more.
    pub(super) fn hand_over(&mut self, slots: &mut [Slot], hand: Hand<'_>) -> bool {
        let Some(handover) = &mut self.handover else { return false };
        if let Some(part) = handover.go_on(slots, &mut self.problem) {
            hand(handover.epoch, Handing::Part(part));
        }
        let done = handover.is_done();
        if done {
            hand(handover.epoch, Handing::Done);
        }
        if done || handover.failed {
            self.handover = None;
        }
        self.handover.is_some()
    }

    pub(super) fn hand_over_all(&mut self, slots: &mut [Slot], hand: Hand<'_>) {
        while self.hand_over(slots, hand) {}
    }
}

impl Handover {
    /// Takes a vehicle if it is due.
    #[inline]
    fn take(&mut self, slot: &mut Slot, problem: &mut Option<String>) {
        if std::mem::take(&mut slot.due) {
            self.take_due(slot, problem);
        }
    }

    fn take_due(&mut self, slot: &mut Slot, problem: &mut Option<String>) {
        self.kept.reserve(PART);
        self.failed |= !slot.keep(&mut self.kept, problem);
        if self.kept.bytes() >= PART {
            let full = self.take_kept();
            self.full.push(full);
        }
    }

    fn take_kept(&mut self) -> Records {
        std::mem::replace(&mut self.kept, Records::keyed())
    }

    /// Takes some more; a part, when one is full or the last one.
    fn go_on(&mut self, slots: &mut [Slot], problem: &mut Option<String>) -> Option<Records> {
        let until = self.kept.bytes() + STEP;
        while self.full.is_empty() && self.kept.bytes() < until {
            let Some(place) = self.places.get(self.next) else { break };
            self.next += 1;
            self.take(&mut slots[*place as usize], problem);
        }
        let all = self.next == self.places.len() && !self.kept.is_empty();
        self.full.pop().or_else(|| all.then(|| self.take_kept()))
    }

    /// All was handed over.
    fn is_done(&self) -> bool {
        !self.failed && self.next == self.places.len() && self.full.is_empty() && self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::vehicles::Vehicles;
    use super::super::{Mark, StateOptions};
    use crate::flow::Time;
    use crate::flow::keep::Handing;
    use crate::testing::{BASE, SECOND, Setup, reading};
    use drivetrain_schemas::reading::{Head, Meta, NULL, Origin, ReadingBatch};
    use drivetrain_schemas::records::{Change, Records};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// By checkpoint: what was handed over of each key, and whether all of it was.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Taken(BTreeMap<Time, (Keys, bool)>);

    /// None: it is taken back.
    type Keys = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

    impl Taken {
        fn hand(&mut self, epoch: Time, handing: Handing) {
            match handing {
                Handing::Begun => assert!(self.0.insert(epoch, Default::default()).is_none()),
                Handing::Part(records) => self.part(epoch, &records),
                Handing::Done => {
                    let (_, done) = self.0.get_mut(&epoch).unwrap();
                    assert!(!std::mem::replace(done, true));
                }
            }
        }

        fn part(&mut self, epoch: Time, records: &Records) {
            let (taken, done) = self.0.get_mut(&epoch).unwrap();
            assert!(!*done && !records.is_empty());
            for record in records.iter() {
                let value = match record.change {
                    Change::Put(value) => Some(value.to_vec()),
                    Change::Gone => None,
                    Change::Add(_) => unreachable!(),
                };
                assert!(taken.insert(record.key.to_vec(), value).is_none(), "a key in two parts");
            }
        }
    }

    type Step = (Vec<(crate::sequence::OwnedReading, u8)>, i64, bool, usize);

    fn step() -> impl Strategy<Value = Step> {
        (prop::collection::vec((reading(20), 0u8..6), 0..6), 0i64..20, prop::bool::weighted(0.3), 0usize..5)
    }

    fn run(vehicles: &mut Vehicles, taken: &mut Taken, epoch: usize, clock: i64, (readings, _, flagged, _): &Step) {
        let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
        let mut batch = ReadingBatch::new(origin.clone(), 4);
        for (position, (reading, vehicle)) in readings.iter().enumerate() {
            let meta = Meta { vehicle: format!("v{vehicle}").into(), ..(*reading.meta).clone() };
            let at = reading.at + clock;
            let head = Head { at, position: position as i64, record_time: NULL, meta: 0, element: 0 };
            batch.push(head, &Arc::new(meta), &reading.values);
        }
        let wall = BASE + clock;
        let marks = vec![
            Mark::Clock { partition: origin, clock: BASE + clock },
            Mark::Epoch { wall, idle: vec![], flush: false, end: false, checkpoint: *flagged },
        ];
        vehicles.run(epoch as Time, vec![batch], marks, &mut |epoch, handing| taken.hand(epoch, handing));
    }

    proptest! {
        /// However far the handing over has come when something happens, it is the state after the flagged epoch.
        #[test]
        fn what_comes_late_is_what_was(steps in prop::collection::vec(step(), 1..40)) {
            let cfg = Arc::new(Setup::default().build());
            let options = StateOptions { every: Some(5 * SECOND), readings: false };
            let mut at_once = (Vehicles::new(cfg.clone(), options, true), Taken::default());
            let mut late = (Vehicles::new(cfg, options, true), Taken::default());
            let mut clock = 0;
            for (epoch, step) in steps.iter().enumerate() {
                clock += step.1 * SECOND;
                run(&mut at_once.0, &mut at_once.1, epoch, clock, step);
                at_once.0.hand_over_all(&mut |epoch, handing| at_once.1.hand(epoch, handing));
                run(&mut late.0, &mut late.1, epoch, clock, step);
                for _ in 0..step.3 {
                    late.0.hand_over(&mut |epoch, handing| late.1.hand(epoch, handing));
                }
            }
            late.0.hand_over_all(&mut |epoch, handing| late.1.hand(epoch, handing));
            let asked = steps.iter().filter(|step| step.2).count();
            prop_assert_eq!(at_once.1.0.len(), asked);
            prop_assert!(at_once.1.0.values().all(|(_, done)| *done));
            prop_assert_eq!(at_once.1, late.1);
        }
    }
}
