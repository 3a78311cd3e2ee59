//! What the tests share: a small catalogue, configurations, and readings to make.

use crate::config::{
    DetectorsConfig, FactsConfig, KernelConfig, KernelInput, RangeConfig, StuckConfig, TimeConfig, TripConfig,
    WindowConfig, ZscoreConfig,
};
use crate::facts::{self, Facts};
use crate::quality::QualityConfig;
use crate::sequence::OwnedReading;
use drivetrain_schemas::catalogue::{Catalogue, SignalConfig, SignalType};
use drivetrain_schemas::policy::{Decimal, Policy};
use drivetrain_schemas::reading::{Meta, NULL, Origin};
use drivetrain_schemas::records::{Change, Records};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Indices in [`catalogue`], which is in byte order of the names.
pub(crate) const G: usize = 0;
pub(crate) const IGNITION: usize = 1;
pub(crate) const SPEED: usize = 2;
pub(crate) const TEMPERATURE: usize = 3;
pub(crate) const SECOND: i64 = 1_000_000;
/// Readings begin here: a minute before a day begins.
pub(crate) const BASE: i64 = (1_700_006_400 - 60) * SECOND;

pub(crate) fn catalogue() -> Catalogue {
    let number = |unit: &str, decimals, vss: Option<&str>| SignalConfig {
        unit: Some(unit.into()),
        decimals: Some(decimals),
        vss: vss.map(String::from),
        ..SignalConfig::default()
    };
    let signals = BTreeMap::from([
        ("g_force_long".to_string(), number("g", 6, None)),
        ("ignition".to_string(), SignalConfig { kind: SignalType::Bool, ..SignalConfig::default() }),
        (
            "speed_kmh".to_string(),
            SignalConfig { interval: Some("2s".into()), ..number("km/h", 2, Some("Vehicle.Speed")) },
        ),
        ("temperature".to_string(), SignalConfig { quantiles: true, ..number("celsius", 1, None) }),
    ]);
    Catalogue::new(&signals).unwrap()
}

pub(crate) struct Setup {
    pub(crate) time: TimeConfig,
    pub(crate) trip: TripConfig,
    pub(crate) facts: FactsConfig,
    pub(crate) detectors: DetectorsConfig,
    pub(crate) policy: Policy,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            time: TimeConfig { hot_horizon: "100s".into(), patience: "30s".into(), ..TimeConfig::default() },
            trip: TripConfig {
                max_gap: "60s".into(),
                speeding_above: Some(Decimal(50_000_000)),
                ..TripConfig::default()
            },
            facts: FactsConfig::default(),
            detectors: DetectorsConfig {
                range: BTreeMap::from([(
                    "temperature".to_string(),
                    RangeConfig { min: Decimal(-1_000_000), max: Decimal(2_000_000) },
                )]),
                zscore: BTreeMap::from([(
                    "g_force_long".to_string(),
                    ZscoreConfig { window: 6, threshold: Decimal(2_000_000), min_samples: Some(3) },
                )]),
                stuck: BTreeMap::from([(
                    "temperature".to_string(),
                    StuckConfig { lasting: "5s".into(), moving_only: Some(true) },
                )]),
            },
            policy: Policy::fleetflow(),
        }
    }
}

impl Setup {
    pub(crate) fn build(&self) -> KernelConfig {
        KernelConfig::new(&KernelInput {
            time: &self.time,
            trip: &self.trip,
            facts: &self.facts,
            windows: &WindowConfig::default(),
            detectors: &self.detectors,
            quality: &QualityConfig::default(),
            catalogue: &catalogue(),
            policy: &self.policy,
            intervals: &BTreeMap::from([("s".into(), SECOND), ("t".into(), 2 * SECOND)]),
        })
        .unwrap()
    }
}

/// Consolidated, so that two sums of changes can be compared.
pub(crate) fn consolidated(facts: &Facts) -> Facts {
    fn sum<F: Ord + Clone>(changes: &[facts::Change<F>]) -> Vec<facts::Change<F>> {
        let mut sums = BTreeMap::new();
        changes.iter().for_each(|(fact, diff)| *sums.entry(fact.clone()).or_insert(0) += diff);
        sums.into_iter().filter(|(_, diff)| *diff != 0).collect()
    }
    Facts {
        windows: sum(&facts.windows),
        events: sum(&facts.events),
        trips: sum(&facts.trips),
        anomalies: sum(&facts.anomalies),
    }
}

/// Adds the rows of a checkpoint to those before.
pub(crate) fn add_rows(kept: &mut BTreeMap<Vec<u8>, i64>, rows: &Records) {
    for record in rows.iter() {
        let Change::Add(diff) = record.change else { panic!("not rows") };
        *kept.entry(record.key.to_vec()).or_default() += diff;
    }
}

pub(crate) fn extend(sum: &mut Facts, more: Facts) {
    sum.windows.extend(more.windows);
    sum.events.extend(more.events);
    sum.trips.extend(more.trips);
    sum.anomalies.extend(more.anomalies);
}

fn maybe(values: impl Strategy<Value = i64> + 'static) -> BoxedStrategy<i64> {
    prop_oneof![1 => Just(NULL), 6 => values].boxed()
}

fn text(choices: &'static [&'static str]) -> BoxedStrategy<Option<Arc<str>>> {
    prop::option::weighted(0.8, prop::sample::select(choices)).prop_map(|t| t.map(Arc::from)).boxed()
}

/// A reading of vehicle `v`: few times, values and circumstances, so that ties and duplicates are frequent.
pub(crate) fn reading(seconds: i64) -> impl Strategy<Value = OwnedReading> {
    let g = prop_oneof![Just(-400_000), Just(400_000), Just(-500_000), Just(450_001), Just(100_000), Just(-200_000)];
    let values = (maybe(g), maybe(0i64..2), maybe((0i64..4).prop_map(|v| v * 2000)), maybe(-30i64..40));
    let who = (text(&["d1", "d2", "d3"]), text(&["a", "b"]), text(&["f1"]), 0u8..2);
    let place = (0usize..2, 0i64..50, 0u32..2);
    (0..seconds * 2, values, who, place).prop_map(
        |(at, (g, i, s, t), (driver, trip, fleet, tag), (o, position, element))| {
            let tags = (tag == 1).then(|| Arc::from("{\"x\":1}"));
            let meta = Meta { vehicle: "v".into(), texts: vec![], driver, trip, fleet, quality: None, tags };
            let source = ["s", "t"][o].into();
            OwnedReading {
                at: BASE + at * (SECOND / 2),
                values: vec![g, i, s, t],
                meta: Arc::new(meta),
                origin: Arc::new(Origin { source, name: "topic".into(), partition: 0 }),
                position,
                element,
            }
        },
    )
}
