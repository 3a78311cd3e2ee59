//! What the operators' state depends on: a hash of each such section. A checkpoint records them, and a start with
//! another one refuses ([`drivetrain_sinks::recovery`]).
//!
//! Not among them is what only concerns records that are yet to come: how they are found and decoded, signals' `range`,
//! `[limits]`, `[epoch]`, `[live]`, reference data; and where results go.
//!
//! The hashes outlive versions: a field that says its default is left out, so that one added later changes nothing.

use super::Config;
use drivetrain_operators::config::{TimeConfig, TripConfig, WindowConfig};
use drivetrain_operators::quality::QualityConfig;
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::policy::Policy;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Hashes by section. `policy` is the one that governs, also where none is configured; `intervals` is the sample
/// interval by source, µs: a source that is added is a section that was not there before.
pub(super) fn sections(
    config: &Config,
    catalogue: &Catalogue,
    policy: &Policy,
    intervals: &BTreeMap<Arc<str>, i64>,
) -> BTreeMap<String, String> {
    // A signal's place is its index in the state.
    let signals = catalogue
        .signals
        .iter()
        .map(|s| json!([s.name, s.vss, s.kind, s.unit, s.decimals, s.interval, s.windows, s.quantiles]));
    let mut sections: BTreeMap<String, String> = [
        ("signals", Value::Array(signals.collect())),
        ("time", bare(&config.time, &TimeConfig::default())),
        ("trip", bare(&config.trip, &TripConfig::default())),
        ("windows", bare(&config.windows, &WindowConfig::default())),
        ("detectors", value(&config.detectors)),
        ("quality", bare(&config.quality, &QualityConfig::default())),
        ("policy", bare(policy, &Policy::fleetflow())),
        // A reading that is taken back was written before.
        ("history.readings", value(&config.history.readings)),
    ]
    .map(|(name, value)| (name.to_string(), hash(&value)))
    .into();
    for (source, interval) in intervals {
        sections.insert(format!("sources.{source}.sample_interval"), hash(&json!(interval)));
    }
    sections
}

fn value<T: Serialize>(section: &T) -> Value {
    // Types of our own, with text keys: nothing in them can fail.
    serde_json::to_value(section).unwrap_or_default()
}

/// The fields that differ from the default.
fn bare<T: Serialize>(section: &T, default: &T) -> Value {
    match (value(section), value(default)) {
        (Value::Object(fields), Value::Object(default)) => {
            fields.into_iter().filter(|(name, value)| default.get(name) != Some(value)).collect()
        }
        (whole, _) => whole,
    }
}

fn hash(value: &Value) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(value.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::{Resolved, load};
    use std::collections::BTreeMap;
    use std::path::Path;

    const BASE: &str = r#"
[signals.speed_kmh]
unit = "km/h"
[signals.g_force_long]
unit = "g"
[sources.a]
layout = "wide"
"#;

    fn sections(text: &str) -> BTreeMap<String, String> {
        let config = load::parse("f.toml", text, std::iter::empty()).unwrap();
        Resolved::new(&config, Path::new("f.toml"), None).unwrap().sections
    }

    /// The sections that a change makes differ.
    fn differing(from: &str, to: &str, added: &str) -> Vec<String> {
        let (before, now) = (sections(BASE), sections(&(BASE.replace(from, to) + added)));
        before.into_iter().filter(|(name, hash)| now.get(name) != Some(hash)).map(|(name, _)| name).collect()
    }

    #[test]
    fn what_state_depends_on_is_told_apart_from_what_it_does_not() {
        let policy = "\n[policy]\npolicy_id = \"p\"\nversion = 1\nevents = []\n";
        for (from, to, added, expected) in [
            ("unit = \"g\"", "unit = \"g\"\ndecimals = 4", "", "signals"),
            ("[sources.a]", "[signals.a]\n[sources.a]", "", "signals"),
            ("", "", "\n[time]\nhot_horizon = \"3m\"\n", "time"),
            ("", "", "\n[trip]\nmax_gap = \"7m\"\n", "trip"),
            ("", "", "\n[windows]\nresolutions = [\"1m\"]\n", "windows"),
            ("", "", "\n[detectors.range.speed_kmh]\nmin = 0\nmax = 200\n", "detectors"),
            ("", "", "\n[quality]\nenabled = false\n", "quality"),
            ("", "", policy, "policy"),
            ("", "", "\n[history]\nreadings = \"none\"\n", "history.readings"),
            ("layout = \"wide\"", "layout = \"wide\"\nsample_interval = \"2s\"", "", "sources.a.sample_interval"),
        ] {
            assert_eq!(differing(from, to, added), [expected], "{to}{added}");
        }
        for (from, to, added) in [
            ("unit = \"g\"", "unit = \"g\"\nrange = [-5, 5]", ""),
            ("unit = \"g\"", "unit = \"g\"\ndecimals = 6", ""),
            ("", "", "\n[sources.b]\nlayout = \"wide\"\ntopics = [\"b\"]\nsample_interval = \"5s\"\n"),
            ("", "", "\n[time]\nhot_horizon = \"2m\"\n"),
            ("", "", "\n[epoch]\nmax_records = 7\n\n[job]\nworkers = 3\nname = \"n\"\n\n[kafka]\nbrokers = \"b:1\"\n"),
            ("", "", "\n[limits]\nmax_elements = 7\n\n[live]\nvehicle_state_every = \"2s\"\n"),
            ("", "", "\n[history]\nroll_after = \"7s\"\n"),
        ] {
            assert_eq!(differing(from, to, added), [""; 0], "{to}{added}");
        }
    }
}
