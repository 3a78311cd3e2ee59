use super::*;
use crate::testing::{Setup, catalogue};
use drivetrain_schemas::policy::Decimal;
use drivetrain_schemas::records::Records;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The rows of a checkpoint as they are read, two in a block.
pub(super) fn blocks(kept: &BTreeMap<Vec<u8>, i64>) -> Vec<Records> {
    let rows: Vec<_> = kept.iter().collect();
    let block = |rows: &[(&Vec<u8>, &i64)]| {
        let mut records = Records::sum();
        rows.iter().for_each(|(row, count)| records.add(**count, |out| out.extend_from_slice(row)));
        records
    };
    rows.chunks(2).map(block).collect()
}

pub(super) fn harsh(value: i64, count: u32) -> Harsh {
    let bin = 2 * value.div_euclid(1000) + i64::from(value.rem_euclid(1000) != 0);
    Harsh { signal: 0, bin: bin as i32, speed: 30, count }
}

fn trip(values: &[i64]) -> TripFact {
    TripFact {
        trip_id: "t".into(),
        vehicle: "v".into(),
        driver: None,
        fleet: None,
        open: false,
        whole: false,
        started_at: 0,
        ended_at: 0,
        samples: 2,
        duration: 2_000_000,
        distance: Some(50 * KILOMETRE),
        max_speed: None,
        speeding: None,
        harsh: values.iter().map(|v| harsh(*v, 1)).collect(),
    }
}

/// `fleetflow`, changed, where the configuration's policy is `fleetflow`.
fn resolved(change: impl FnOnce(&mut Policy)) -> Result<ResolvedPolicy, PolicyError> {
    resolved_beside(&Setup::default(), change)
}

fn resolved_beside(setup: &Setup, change: impl FnOnce(&mut Policy)) -> Result<ResolvedPolicy, PolicyError> {
    let mut policy = Policy::fleetflow();
    change(&mut policy);
    ResolvedPolicy::new(&policy, &catalogue(), &setup.build().trip.harsh)
}

/// Policies that differ in all that matters: two versions of one, another, and a shadow.
pub(super) fn policies() -> Vec<Arc<ResolvedPolicy>> {
    let policy = |id: &str, version, status, horizon: &str| {
        let resolved = resolved(|p| {
            (p.policy_id, p.version, p.status) = (id.into(), version, status);
            p.driver.horizon = horizon.into();
            p.valid_from = (version == 2).then(|| "1970-01-01T00:00:00.000002Z".into());
        });
        Arc::new(resolved.unwrap())
    };
    vec![
        policy("a", 1, Status::Active, "28d"),
        policy("a", 2, Status::Active, "14d"),
        policy("b", 1, Status::Active, "7d"),
        policy("s", 1, Status::Shadow, "28d"),
    ]
}

#[test]
fn one_harsh_braking_costs_five() {
    let policy = resolved(|_| ()).unwrap();
    let fact = trip(&[-500_000]);
    let s = score(&policy, &fact);
    assert_eq!((s.score, s.counts, s.exposure), (95_000_000, [1, 0, 0, 0, 0, 0], 2_000_000));
    let why = why(&policy, &fact, &s);
    assert_eq!((why[0].penalty, why[0].share, why[1].penalty), (5_000_000, 1_000_000, 0));
    assert_eq!(score(&policy, &trip(&[600_000; 30])).score, 0);
}

#[test]
fn the_threshold_itself_counts_by_ge_alone() {
    let policy = resolved(|_| ()).unwrap();
    assert_eq!(score(&policy, &trip(&[-400_000, 400_000])).counts[..2], [0, 0]);
    assert_eq!(score(&policy, &trip(&[-400_001, 400_001])).counts[..2], [1, 1]);
    let policy = resolved(|p| p.events.iter_mut().for_each(|r| r.compare = Compare::Ge)).unwrap();
    assert_eq!(score(&policy, &trip(&[-400_000, 400_000])).counts[..2], [1, 1]);
    assert_eq!(score(&policy, &trip(&[-399_999, 399_999])).counts[..2], [0, 0]);
}

#[test]
fn normalised_and_rounded_once() {
    let policy = resolved(|p| p.normalisation = Normalisation::Per100Km).unwrap();
    assert_eq!(score(&policy, &trip(&[-500_000])).score, 90_000_000);
    let mut unknown = trip(&[-500_000]);
    unknown.distance = None;
    assert_eq!(score(&policy, &unknown).score, 95_000_000);
    let mut third = trip(&[-500_000, 500_000]);
    third.distance = Some(300 * KILOMETRE);
    assert_eq!(score(&policy, &third).score, 96_666_667);
    let policy = resolved(|p| p.normalisation = Normalisation::PerHour).unwrap();
    let mut hours = trip(&[-500_000]);
    hours.duration = 2 * HOUR as i64;
    assert_eq!(score(&policy, &hours).score, 97_500_000);
}

#[test]
fn a_driver_is_the_weighted_mean() {
    let policy = resolved(|_| ()).unwrap();
    assert_eq!(driver_score(&policy, 95_000_000 * 2 + 100_000_000, 3), Some(96_666_667));
    assert_eq!(driver_score(&policy, 0, 0), None);
    let policy = resolved(|p| p.driver.min_exposure = Decimal(10_000_000)).unwrap();
    assert_eq!(driver_score(&policy, 95_000_000 * 9_999_999, 9_999_999), None);
    assert_eq!(driver_score(&policy, 95_000_000 * 10_000_000, 10_000_000), Some(95_000_000));
    let band = |score| policy.driver.band(score).map(|b| b.to_string());
    assert_eq!(band(90_000_000).as_deref(), Some("excellent"));
    assert_eq!(band(89_999_999).as_deref(), Some("good"));
    assert_eq!(band(0).as_deref(), Some("poor"));
}

#[test]
fn refusals_say_why() {
    let refused = |change: fn(&mut Policy)| resolved(change).unwrap_err().to_string();
    let text = refused(|p| p.events[0].threshold = Decimal(400_500));
    assert!(text.contains("0.4005 is not on the grid of 0.001 g"), "{text}");
    let text = refused(|p| p.events[0].threshold = Decimal(199_000));
    assert!(text.contains("0.199 is below 0.200 g"), "{text}");
    let text = refused(|p| p.events[0].signal = "g_force_lng".into());
    assert!(text.contains("did you mean \"g_force_long\""), "{text}");
    assert!(refused(|p| p.events[1].counting = Counting::Excursion).contains("not supported in scores yet"));
    assert!(refused(|p| p.valid_from = Some("yesterday".into())).contains("yesterday"));
}

/// A rule on the speed, which is no acceleration.
fn speeding(threshold: i64) -> EventRule {
    let rule = Policy::fleetflow().events[1].clone();
    EventRule { kind: EventKind::Speeding, signal: "speed_kmh".into(), threshold: Decimal(threshold), ..rule }
}

/// What trips do not keep cannot be counted: such a rule would say 0 where there is more.
#[test]
fn a_rule_on_samples_that_trips_do_not_keep_is_refused() {
    let refused = resolved(|p| p.events.push(speeding(120_000_000))).unwrap_err().to_string();
    assert!(refused.starts_with("events[2].signal: trips keep no samples of \"speed_kmh\""), "{refused}");
    assert!(refused.contains("[policy]") && refused.contains("add a rule"), "{refused}");

    let mut setup = Setup::default();
    setup.policy.events.extend([speeding(120_000_000), speeding(90_000_000)]);
    let beside = |threshold| resolved_beside(&setup, |p| p.events.push(speeding(threshold)));
    assert!(beside(90_000_000).is_ok() && beside(130_000_000).is_ok());
    let refused = beside(89_999_000).unwrap_err().to_string();
    assert!(refused.contains("89.999 is below 90.000 km/h") && refused.contains("raise it"), "{refused}");
    assert!(refused.contains("\"speed_kmh\""), "{refused}");
}

/// Signals of two decimals and rules of three: whatever the threshold, either the rule counts what it would count in
/// the samples themselves, or it is refused.
#[test]
fn the_least_threshold_counts_every_sample() {
    for (least, ge) in [(90_005_000, false), (90_005_000, true), (90_010_000, true), (1_000, false)] {
        let mut setup = Setup::default();
        setup.policy.events.push(speeding(least));
        let config = setup.build();
        let compare = if ge { Compare::Ge } else { Compare::Gt };
        let policy = resolved_beside(&setup, |p| p.events = vec![EventRule { compare, ..speeding(least) }]).unwrap();
        for value in [least / 10_000 - 1, least / 10_000, least / 10_000 + 1] {
            let meta = std::sync::Arc::new(drivetrain_schemas::reading::Meta {
                vehicle: "v".into(),
                texts: vec![],
                driver: None,
                trip: None,
                fleet: None,
                quality: None,
                tags: None,
            });
            let null = drivetrain_schemas::reading::NULL;
            let values = [null, null, value, null];
            let sample = crate::sample::Sample { at: 0, interval: 1, meta: &meta, values: &values };
            let mut open = crate::trips::Open::new("t".into(), 0);
            open.add(&config.trip, &sample, false);
            let counted = score(&policy, &open.fact(&"v".into(), false)).counts[EventKind::Speeding as usize];
            let magnitude = value * 10_000;
            let expected = i64::from(if ge { magnitude >= least } else { magnitude > least });
            assert_eq!(counted, expected, "{value} against {least}, ge: {ge}");
        }
    }
}

proptest! {
    /// Counting by bins is counting by values, whatever the threshold on the grid, the side and the comparison.
    #[test]
    fn bins_are_exact(
        values in prop::collection::vec(prop_oneof![-2_000_000i64..2_000_000, (-2000i64..2000).prop_map(|v| v * 1000)], 0..50),
        threshold in 200i64..1500,
        ge: bool,
        side in 0..3,
    ) {
        let direction = [Direction::Negative, Direction::Positive, Direction::Both][side as usize];
        let policy = resolved(|p| {
            p.events.truncate(1);
            p.events[0].threshold = Decimal(threshold * 1000);
            p.events[0].compare = if ge { Compare::Ge } else { Compare::Gt };
            p.events[0].direction = direction;
        }).unwrap();
        let passes = |v: &&i64| {
            let sided = match direction {
                Direction::Negative => **v < 0,
                Direction::Positive => **v > 0,
                Direction::Both => true,
            };
            sided && if ge { v.abs() >= threshold * 1000 } else { v.abs() > threshold * 1000 }
        };
        let expected = values.iter().filter(passes).count() as i64;
        let bins: Vec<_> = values.iter().map(|v| harsh(*v, 1)).collect();
        prop_assert_eq!(count(&policy.rules[0], &bins), expected);
    }
}
