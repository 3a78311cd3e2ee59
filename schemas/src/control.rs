//! Control documents: slow, keyed reference data that explains the readings (DESIGN §5).
//!
//! They come on compacted topics or in files under `[reference]`, one JSON object a document; a null value (tombstone)
//! withdraws the document of its key.

use crate::policy::Policy;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Reason in `rejects` of a document that could not be used.
pub const BAD_DOCUMENT: &str = "bad_document";

/// Which kind of document a control topic or file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlKind {
    Vehicles,
    Drivers,
    Fleets,
    Policies,
}

impl ControlKind {
    pub const ALL: [ControlKind; 4] =
        [ControlKind::Vehicles, ControlKind::Drivers, ControlKind::Fleets, ControlKind::Policies];

    pub fn name(self) -> &'static str {
        match self {
            ControlKind::Vehicles => "vehicles",
            ControlKind::Drivers => "drivers",
            ControlKind::Fleets => "fleets",
            ControlKind::Policies => "policies",
        }
    }
}

/// A vehicle from `effective_from` on. Key: `vehicle_id@effective_from`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vehicle {
    pub vehicle_id: Arc<str>,
    #[serde(default)]
    pub external_id: Option<String>,
    /// bus, car, scooter, truck, rig, …
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub manufacturer: Option<String>,
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub fleet_id: Option<Arc<str>>,
    #[serde(default)]
    pub sensors: Vec<Sensor>,
    /// RFC 3339; default: always.
    #[serde(default)]
    pub effective_from: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sensor {
    pub sensor_type: String,
    #[serde(default)]
    pub sampling_interval: Option<String>,
    #[serde(default)]
    pub range: Option<[crate::policy::Decimal; 2]>,
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// A driver from `effective_from` on. Key: `driver_id@effective_from`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Driver {
    pub driver_id: Arc<str>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub fleet_id: Option<Arc<str>>,
    #[serde(default)]
    pub effective_from: Option<String>,
}

/// A fleet. Key: `fleet_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fleet {
    pub fleet_id: Arc<str>,
    #[serde(default)]
    pub parent_id: Option<Arc<str>>,
    #[serde(default)]
    pub name: Option<String>,
}

/// A document of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Document {
    Vehicle(Vehicle),
    Driver(Driver),
    Fleet(Fleet),
    Policy(Box<Policy>),
}

/// One change of one document, bound to an epoch by value: the later one of a key replaces the earlier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ControlChange {
    pub kind: ControlKind,
    pub key: Arc<str>,
    /// None: the document of this key is withdrawn.
    pub document: Option<Document>,
}
