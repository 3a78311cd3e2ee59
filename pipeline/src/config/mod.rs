//! The configuration: one TOML file, `DRIVETRAIN_SECTION__FIELD` overrides, unknown fields denied.

mod load;
mod resolve;
mod sections;

pub use load::{ConfigError, load, parse};
pub use resolve::Resolved;

use crate::source::{EpochConfig, SourceConfig};
use drivetrain_operators::config::{DetectorsConfig, FactsConfig, TimeConfig, TripConfig, WindowConfig};
use drivetrain_operators::quality::QualityConfig;
use drivetrain_schemas::catalogue::SignalConfig;
use drivetrain_schemas::mapping::Limits;
use drivetrain_schemas::policy::Policy;
use drivetrain_sinks::history::HistoryConfig;
use drivetrain_sinks::kafka::KafkaConfig;
use drivetrain_sinks::store::StorageConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole file. Every section but `[signals]` and `[sources]` may be left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub job: JobConfig,
    pub kafka: KafkaConfig,
    pub epoch: EpochConfig,
    pub time: TimeConfig,
    pub limits: Limits,
    pub signals: BTreeMap<String, SignalConfig>,
    pub sources: BTreeMap<String, SourceConfig>,
    pub trip: TripConfig,
    pub facts: FactsConfig,
    pub windows: WindowConfig,
    pub detectors: DetectorsConfig,
    pub quality: QualityConfig,
    /// The policy that governs where no policy document does. Default: `fleetflow` (DESIGN §7).
    pub policy: Option<Policy>,
    pub history: HistoryConfig,
    #[serde(skip_serializing_if = "StorageConfig::is_default")]
    pub storage: StorageConfig,
    pub live: LiveConfig,
    pub reference: ReferenceConfig,
}

/// `[job]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobConfig {
    /// Name of the job: its transactional id, its progress topic `<name>.progress`, its consumer group.
    pub name: String,
    /// Directory of the history and of everything else on disk; `--data` overrides it. With `[storage]`: of what is being
    /// worked on.
    pub data: Option<PathBuf>,
    /// Worker threads of each process; default 1, `--workers` overrides it. Results do not depend on it.
    pub workers: Option<usize>,
}

impl Default for JobConfig {
    fn default() -> Self {
        Self { name: "drivetrain".into(), data: None, workers: None }
    }
}

/// `[live]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveConfig {
    /// Publish `vehicle_state` (default true).
    pub vehicle_state: bool,
    /// At most one update of a vehicle's state in this time, such as `"1s"` (default).
    pub vehicle_state_every: String,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self { vehicle_state: true, vehicle_state_every: "1s".into() }
    }
}

/// `[reference]`: where the control documents are. Each is a list of files (`.jsonl`, `.json`; relative to the
/// configuration) or one topic.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferenceConfig {
    pub vehicles: Option<ReferenceSource>,
    pub drivers: Option<ReferenceSource>,
    pub fleets: Option<ReferenceSource>,
    pub policies: Option<ReferenceSource>,
}

/// `{ files = ["vehicles.jsonl"] }` or `{ topic = "vehicles" }`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferenceSource {
    pub files: Vec<PathBuf>,
    pub topic: Option<String>,
}
