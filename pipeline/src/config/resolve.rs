//! From what the file says to what the job needs, with every contradiction found before anything is written.

use super::sections::sections;
use super::{Config, ConfigError, ReferenceSource, load};
use crate::source::{EpochSettings, Pending, SourceConfig, SourceSpec};
use drivetrain_operators::config::{KernelConfig, KernelInput};
use drivetrain_operators::flow::sequence::StateOptions;
use drivetrain_operators::score::ResolvedPolicy;
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::control::ControlKind;
use drivetrain_schemas::decode::{Decoder, SourceContext};
use drivetrain_schemas::policy::Policy;
use drivetrain_schemas::time::{parse_duration, parse_rfc3339};
use drivetrain_sinks::history::{HistoryConfig, KeepReadings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A checked configuration.
#[derive(Debug)]
pub struct Resolved {
    pub catalogue: Arc<Catalogue>,
    pub kernels: Arc<KernelConfig>,
    pub state_options: StateOptions,
    pub epochs: EpochSettings,
    /// In the order of their names; a source's place is its index everywhere.
    pub sources: Vec<SourceSpec>,
    pub contexts: Vec<SourceContext>,
    /// The policy that governs where no policy document does.
    pub policy: Policy,
    /// Control documents: kind, files, topic.
    pub reference: Vec<(ControlKind, Vec<PathBuf>, Option<String>)>,
    /// Hash of what results depend on.
    pub hash: String,
    /// Hashes of what the operators' state depends on, by section.
    pub sections: BTreeMap<String, String>,
}

impl Resolved {
    /// Checks a configuration. `path` is where it stood; `at` is `replay --at`.
    ///
    /// # Errors
    /// [`ConfigError::Meaning`] names the field, what stood there and what would do.
    pub fn new(config: &Config, path: &Path, at: Option<&str>) -> Result<Self, ConfigError> {
        let meaning = |message: String| load::meaning(path, message);
        let catalogue = Arc::new(Catalogue::new(&config.signals).map_err(|e| meaning(e.to_string()))?);
        if config.sources.is_empty() {
            return Err(meaning("no source is configured; add a [sources.<name>] section".into()));
        }
        let policy = config.policy.clone().unwrap_or_else(|| default_policy(&catalogue));
        let intervals = sample_intervals(config).map_err(meaning)?;
        let kernels = KernelConfig::new(&KernelInput {
            time: &config.time,
            trip: &config.trip,
            facts: &config.facts,
            windows: &config.windows,
            detectors: &config.detectors,
            quality: &config.quality,
            catalogue: &catalogue,
            policy: &policy,
            intervals: &intervals,
        })
        .map_err(|e| meaning(e.to_string()))?;
        ResolvedPolicy::new(&policy, &catalogue, &kernels.trip.harsh).map_err(|e| meaning(format!("policy.{e}")))?;
        let every = parse_duration(&config.live.vehicle_state_every)
            .map_err(|e| meaning(format!("live.vehicle_state_every: {e}")))?;
        let every = config.live.vehicle_state.then_some(every);
        let epochs = epochs(config, &kernels, every).map_err(meaning)?;
        let at = at.map(parse_rfc3339).transpose().map_err(|e| ConfigError::Argument(format!("--at: {e}")))?;
        let mut sources = Vec::new();
        let mut contexts = Vec::new();
        for (name, source) in &config.sources {
            sources.push(SourceSpec::new(name, source).map_err(|e| meaning(e.to_string()))?);
            let context = SourceContext {
                name: name.as_str().into(),
                mapping: source.mapping(),
                limits: config.limits.clone(),
                replay_at: at,
            };
            Decoder::new(&context, &catalogue).map_err(|e| meaning(e.to_string()))?;
            contexts.push(context);
        }
        config.history.validate().map_err(meaning)?;
        config.storage.validate().map_err(meaning)?;
        // Where no broker is named, nobody reads the properties.
        if !config.kafka.brokers.is_empty() {
            config.kafka.check_properties().map_err(meaning)?;
        }
        let state_options = StateOptions { every, readings: config.history.readings == KeepReadings::All };
        Ok(Self {
            kernels: Arc::new(kernels),
            state_options,
            epochs,
            sources,
            contexts,
            reference: reference(config, path),
            hash: hash(config),
            sections: sections(config, &catalogue, &policy, &intervals),
            policy,
            catalogue,
        })
    }

    /// A worker's decoders, one a source.
    pub fn decoders(&self) -> Vec<Decoder> {
        // They were built once in `new`, from the same contexts, so that none fails here.
        self.contexts.iter().filter_map(|context| Decoder::new(context, &self.catalogue).ok()).collect()
    }
}

/// `[epoch]`, and what it has to do with other sections.
fn epochs(config: &Config, kernels: &KernelConfig, states: Option<i64>) -> Result<EpochSettings, String> {
    let pending = Pending { quiet: kernels.time.quiet, vehicle_state_every: states.unwrap_or(0) };
    let epochs = config.epoch.resolve(pending).map_err(|(field, reason)| format!("epoch.{field}: {reason}"))?;
    if epochs.max_skew >= kernels.time.hot_horizon {
        return Err(format!(
            "epoch.max_skew ({}) must be less than time.hot_horizon ({}), or two topics of a vehicle make each other \
             late; lower the first or raise the second",
            config.epoch.max_skew, config.time.hot_horizon
        ));
    }
    Ok(epochs)
}

/// `fleetflow`; for a catalogue without `g_force_long` the same without rules, so that its trips score 100.
fn default_policy(catalogue: &Catalogue) -> Policy {
    let mut policy = Policy::fleetflow();
    policy.events.retain(|rule| catalogue.index(&rule.signal).is_some());
    policy
}

/// The sample interval of each source, µs.
fn sample_intervals(config: &Config) -> Result<BTreeMap<Arc<str>, i64>, String> {
    let interval = |(name, source): (&String, &SourceConfig)| {
        let text = source.sample_interval.as_deref().unwrap_or("1s");
        let interval = parse_duration(text).map_err(|e| format!("sources.{name}.sample_interval: {e}"))?;
        Ok((name.as_str().into(), interval))
    };
    config.sources.iter().map(interval).collect()
}

fn reference(config: &Config, path: &Path) -> Vec<(ControlKind, Vec<PathBuf>, Option<String>)> {
    let base = path.parent().unwrap_or(Path::new(""));
    let r = &config.reference;
    let entries = [
        (ControlKind::Vehicles, &r.vehicles),
        (ControlKind::Drivers, &r.drivers),
        (ControlKind::Fleets, &r.fleets),
        (ControlKind::Policies, &r.policies),
    ];
    let resolve = |(kind, source): (ControlKind, &Option<ReferenceSource>)| {
        let source = source.as_ref()?;
        Some((kind, source.files.iter().map(|file| base.join(file)).collect(), source.topic.clone()))
    };
    entries.into_iter().filter_map(resolve).collect()
}

impl Config {
    /// XXH3-64 of what must be the same in all processes of a job: everything but where data is read and written, which
    /// is the leader's alone (its secrets, too), and the number of workers, which is compared by itself. `at`:
    /// `replay --at`.
    pub fn shared_hash(&self, at: Option<&str>) -> String {
        let job = super::JobConfig { workers: None, data: None, name: self.job.name.clone() };
        let shared = Config { job, kafka: Default::default(), storage: Default::default(), ..self.clone() };
        let text = toml::to_string(&shared).unwrap_or_default() + at.unwrap_or_default();
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }
}

/// XXH3-64 of the sections on which results depend (not workers, paths, brokers or epochs).
fn hash(config: &Config) -> String {
    // Nothing that `compact` does changes a result.
    let kept = HistoryConfig::default();
    let relevant = Config {
        job: super::JobConfig { workers: None, data: None, name: String::new() },
        kafka: Default::default(),
        storage: Default::default(),
        epoch: Default::default(),
        history: HistoryConfig {
            as_of: kept.as_of,
            bindings: kept.bindings,
            grace: kept.grace,
            retention: kept.retention,
            ..config.history.clone()
        },
        ..config.clone()
    };
    let text = toml::to_string(&relevant).unwrap_or_default();
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}
