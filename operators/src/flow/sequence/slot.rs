//! A vehicle among those of a worker: its state, and when it is to be looked at again.

use super::aliases::Aliases;
use super::turns::NONE;
use crate::pack::pack;
use crate::sequence::{Packed, VehicleState};
use drivetrain_schemas::records::Records;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// A vehicle's state; after a restart it stays packed until somebody asks for it.
pub(super) enum Held {
    Live(Box<VehicleState>),
    Packed(Packed),
}

/// A vehicle and when it is to be looked at again.
pub(super) struct Slot {
    pub(super) vehicle: Arc<str>,
    pub(super) held: Held,
    /// [`VehicleState::deadline`], also of one that is packed.
    pub(super) deadline: Option<i64>,
    /// Wall time of the last epoch with a reading of it.
    pub(super) heard: i64,
    /// The smallest deadline under which it stands in `Vehicles::deadlines`.
    pub(super) scheduled: i64,
    /// Its state was not said since it changed.
    pub(super) dirty: bool,
    /// It has changed since the last checkpoint.
    pub(super) touched: bool,
    /// The checkpoint that is being handed over is to have it as it is now.
    pub(super) due: bool,
    pub(super) aliases: Aliases,
    /// Its turn in this epoch ([`super::turns::Turns`]).
    pub(super) turn: u32,
}

/// What stands before a vehicle's packed head in a checkpoint.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) heard: i64,
    pub(super) deadline: Option<i64>,
    pub(super) dirty: bool,
}

impl Slot {
    /// Hands over what has changed since it was last asked; false: it cannot be read.
    pub(super) fn keep(&mut self, kept: &mut Records, problem: &mut Option<String>) -> bool {
        // One that is packed has not changed but in its header.
        let header = Header { heard: self.heard, deadline: self.deadline, dirty: self.dirty };
        let Some(state) = live(self, true, problem) else { return false };
        state.keep(|out| pack(&header, out), kept);
        true
    }

    pub(super) fn new(vehicle: Arc<str>, held: Held) -> Self {
        Self {
            vehicle,
            held,
            deadline: None,
            heard: i64::MIN,
            scheduled: i64::MAX,
            dirty: false,
            touched: false,
            due: false,
            aliases: Aliases::default(),
            turn: NONE,
        }
    }

    /// Puts the vehicle on the list of those with something to close, earlier than it stands there.
    pub(super) fn schedule(&mut self, vehicle: u32, deadlines: &mut BinaryHeap<Reverse<(i64, u32)>>) {
        if let Some(deadline) = self.deadline
            && deadline < self.scheduled
        {
            self.scheduled = deadline;
            deadlines.push(Reverse((deadline, vehicle)));
        }
    }
}

/// The vehicle's state, unpacked if need be; None with a problem when it cannot be.
pub(super) fn live<'a>(slot: &'a mut Slot, keeps: bool, problem: &mut Option<String>) -> Option<&'a mut VehicleState> {
    if let Held::Packed(packed) = &slot.held {
        match packed.unpack(keeps) {
            Ok(state) => slot.held = Held::Live(Box::new(state)),
            Err(error) => *problem = Some(format!("the checkpoint's state of a vehicle cannot be read: {error}")),
        }
    }
    match &mut slot.held {
        Held::Live(state) => Some(state),
        Held::Packed(_) => None,
    }
}
