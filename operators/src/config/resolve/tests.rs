use super::super::*;
use crate::quality::QualityConfig;
use crate::testing::{G, SPEED, Setup, catalogue};
use drivetrain_schemas::catalogue::{Catalogue, SignalConfig};
use drivetrain_schemas::policy::Policy;
use drivetrain_schemas::reading::NULL;

fn refused(change: impl FnOnce(&mut Setup)) -> String {
    let mut setup = Setup::default();
    change(&mut setup);
    let input = KernelInput {
        time: &setup.time,
        trip: &setup.trip,
        facts: &setup.facts,
        windows: &WindowConfig::default(),
        detectors: &setup.detectors,
        quality: &QualityConfig::default(),
        catalogue: &catalogue(),
        policy: &setup.policy,
        intervals: &BTreeMap::new(),
    };
    KernelConfig::new(&input).unwrap_err().to_string()
}

#[test]
fn errors_name_the_field_and_the_remedy() {
    let text = refused(|s| s.trip.speed = Some("sped_kmh".into()));
    assert!(text.starts_with("trip.speed: ") && text.contains("did you mean \"speed_kmh\""), "{text}");
    let text = refused(|s| s.trip.odometer = Some("speed_kmh".into()));
    assert!(text.contains("unit km/h; a unit of length is needed"), "{text}");
    let text = refused(|s| s.time.patience = "5 moons".into());
    assert!(text.starts_with("time.patience: \"5 moons\""), "{text}");
    let text = refused(|s| s.trip.ignition = Some("speed_kmh".into()));
    assert!(text.contains("not of type bool"), "{text}");
    let text = refused(|s| s.facts.retention = "99s".into());
    assert!(text.starts_with("facts.retention: 99s is less than time.hot_horizon"), "{text}");
    let text = refused(|s| s.facts.retention = "for ever".into());
    assert!(text.starts_with("facts.retention: \"for ever\""), "{text}");
    let text = refused(|s| s.policy.events[1].signal = "accel".into());
    assert!(text.starts_with("policy.events[1].signal: "), "{text}");
    let text = refused(|s| s.detectors.range.get_mut("temperature").unwrap().max = Decimal(-5_000_000));
    assert_eq!(text, "detectors.range.temperature: min must be below max");
}

#[test]
fn thresholds_become_the_signals_grid() {
    let cfg = Setup::default().build();
    let harsh = cfg.trip.harsh[0];
    assert_eq!((harsh.signal, harsh.floor), (G as u16, 200_000));
    assert_eq!((harsh.report_below, harsh.report_above), (Some(-400_000), Some(400_000)));
    assert_eq!((cfg.events[0].enter, cfg.events[0].severity), (400_001, [520_000, 680_000]));
    // 0.01 km/h is 10^4 × 10^-6 km/h.
    assert_eq!(cfg.trip.speed.map(|(s, r)| (s, r.of(3))), Some((SPEED as u16, 30_000)));
    assert_eq!(cfg.facts_retention, Some(90 * 86_400_000_000));
    let facts = FactsConfig { retention: "forever".into() };
    assert_eq!(Setup { facts, ..Setup::default() }.build().facts_retention, None);
    assert_eq!(cfg.interval("t"), 2_000_000);
    assert_eq!(cfg.interval("other"), KernelConfig::DEFAULT_INTERVAL);
}

/// Distance by each method over one step of 10 s, in mm.
fn millimetres(unit: &str, vss: &str, name: &str, distance: bool, values: [i64; 2]) -> i128 {
    use crate::sample::Sample;
    use drivetrain_schemas::reading::Meta;
    let signal = |unit: &str, vss: &str| SignalConfig {
        unit: Some(unit.into()),
        vss: Some(vss.into()),
        ..SignalConfig::default()
    };
    let mut signals = BTreeMap::from([(name.to_string(), signal(unit, vss))]);
    signals.insert("longitude".into(), signal("deg", "Vehicle.CurrentLocation.Longitude"));
    let catalogue = Catalogue::new(&signals).unwrap();
    let trip = TripConfig { distance: distance.then(|| name.to_string()), ..TripConfig::default() };
    let cfg = KernelConfig::new(&KernelInput {
        time: &TimeConfig::default(),
        trip: &trip,
        facts: &FactsConfig::default(),
        windows: &WindowConfig::default(),
        detectors: &DetectorsConfig::default(),
        quality: &QualityConfig::default(),
        catalogue: &catalogue,
        policy: &Policy { events: vec![], ..Policy::fleetflow() },
        intervals: &BTreeMap::new(),
    })
    .unwrap();
    let mut open = crate::trips::Open::new("t".into(), 0);
    let meta =
        Meta { vehicle: "v".into(), texts: vec![], driver: None, trip: None, fleet: None, quality: None, tags: None };
    let meta = std::sync::Arc::new(meta);
    let place = catalogue.index(name).unwrap() as usize;
    for (i, value) in values.into_iter().enumerate() {
        let mut row = if unit == "deg" { [0, 0] } else { [NULL, NULL] };
        row[place] = value;
        let sample = Sample { at: i as i64 * 10_000_000, interval: 1, meta: &meta, values: &row };
        open.add(&cfg.trip, &sample, false);
    }
    open.fact(&"v".into(), false).distance.unwrap() / 3_600_000_000
}

#[test]
fn every_way_to_measure_a_step() {
    assert_eq!(millimetres("km", "Vehicle.TraveledDistance", "odometer", false, [5_000_000, 5_250_000]), 250_000);
    assert_eq!(millimetres("mi", "Vehicle.TraveledDistance", "odometer", false, [0, 1_000_000]), 1_609_344);
    // The increment of the first sample is of the trip too.
    assert_eq!(millimetres("m", "Vehicle.Other", "step", true, [9_000_000, 2_000_000]), 11_000);
    assert_eq!(millimetres("m/s", "Vehicle.Speed", "speed", false, [10_000_000, 20_000_000]), 150_000);
    // A thousandth of a degree of latitude on a sphere of 6371.0088 km.
    assert_eq!(millimetres("deg", "Vehicle.CurrentLocation.Latitude", "latitude", false, [0, 10_000]), 111_195);
}
