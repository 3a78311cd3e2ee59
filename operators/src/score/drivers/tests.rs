use super::*;
use crate::score::tests::{blocks, policies};
use crate::testing::add_rows;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn trip(driver: u8, ended_at: i64, id: u8, fleet: u8, policy: usize) -> DriverTrip {
    let policy = policies()[policy].clone();
    let (score, exposure) = (90_000_000 - 7_000_000 * i128::from(id), 1_000_000 * i128::from(1 + fleet));
    DriverTrip {
        driver: format!("d{driver}").into(),
        ended_at: ended_at * 86_400_000_000,
        trip_id: format!("t{id}").into(),
        vehicle: format!("v{}", id % 2).into(),
        fleet: (fleet > 0).then(|| format!("f{fleet}").into()),
        policy,
        totals: Totals { trips: 1, duration: 5, weighted: score * exposure, exposure, ..Totals::default() },
        sealed: false,
    }
}

/// By fleet, vehicle and driver.
type Counts = BTreeMap<(Arc<str>, Arc<str>, Arc<str>), Totals>;

/// All that follows from a set of trips, trip by trip.
fn anew(trips: &BTreeSet<DriverTrip>) -> (BTreeSet<DriverRow>, Counts) {
    let drivers: BTreeSet<&Arc<str>> = trips.iter().map(|trip| &trip.driver).collect();
    let (mut rows, mut counted) = (BTreeSet::new(), Counts::new());
    for driver in drivers {
        let mut own: Vec<&DriverTrip> = trips.iter().filter(|trip| trip.driver == *driver).collect();
        own.sort_by(|a, b| {
            let key =
                |t: &DriverTrip| (t.ended_at, t.trip_id.clone(), t.vehicle.clone(), t.fleet.clone(), t.policy.clone());
            key(a).cmp(&key(b)).then_with(|| a.totals.cmp(&b.totals))
        });
        let active = |t: &&&DriverTrip| t.policy.status == Status::Active;
        let newest = *own.iter().rev().find(active).or(own.last()).unwrap();
        let mut ids: Vec<Arc<str>> = own.iter().map(|t| t.policy.policy_id.clone()).collect();
        ids.sort();
        ids.dedup();
        for id in ids {
            let within = |t: &&&DriverTrip| t.ended_at > newest.ended_at - t.policy.driver.horizon;
            let of: Vec<_> = own.iter().filter(|t| t.policy.policy_id == id).filter(within).collect();
            let Some(last) = of.last() else { continue };
            let mut totals = Totals::default();
            of.iter().for_each(|t| totals.add(&t.totals, 1));
            let score = driver_score(&last.policy, totals.weighted, totals.exposure);
            rows.insert(DriverRow {
                driver: driver.clone(),
                policy: last.policy.clone(),
                score,
                band: score.and_then(|s| last.policy.driver.band(s)),
                totals,
                fleet: newest.fleet.clone(),
                newest: id == newest.policy.policy_id,
            });
            for t in of.iter().filter(|t| active(t)) {
                let Some(fleet) = &t.fleet else { continue };
                counted.entry((fleet.clone(), t.vehicle.clone(), driver.clone())).or_default().add(&t.totals, 1);
            }
        }
    }
    (rows, counted)
}

/// Sums of what was said.
#[derive(Default)]
struct Sums {
    rows: BTreeMap<DriverRow, isize>,
    counted: BTreeMap<Counted, isize>,
    standings: BTreeMap<Standing, isize>,
}

impl Sums {
    fn add(&mut self, said: Said) {
        said.rows.into_iter().for_each(|(row, diff)| *self.rows.entry(row).or_default() += diff);
        said.counted.into_iter().for_each(|(fact, diff)| *self.counted.entry(fact).or_default() += diff);
        said.standings.into_iter().for_each(|(fact, diff)| *self.standings.entry(fact).or_default() += diff);
        self.rows.retain(|_, count| *count != 0);
        self.counted.retain(|_, count| *count != 0);
        self.standings.retain(|_, count| *count != 0);
    }

    #[track_caller]
    fn check(&self, trips: &BTreeMap<DriverTrip, isize>) {
        let (rows, counted) =
            anew(&trips.iter().filter(|(_, count)| **count > 0).map(|(trip, _)| trip.clone()).collect());
        assert!(
            self.rows.values().chain(self.counted.values()).chain(self.standings.values()).all(|count| *count == 1)
        );
        assert_eq!(self.rows.keys().cloned().collect::<BTreeSet<_>>(), rows);
        let said = self.counted.keys().cloned();
        assert_eq!(said.map(|c| ((c.fleet, c.vehicle, c.driver), c.totals)).collect::<BTreeMap<_, _>>(), counted);
        let live = rows.into_iter().filter(|row| row.newest);
        let live = live.filter_map(|r| Some(Standing { fleet: r.fleet?, score: r.score?, driver: r.driver }));
        assert_eq!(self.standings.keys().cloned().collect::<BTreeSet<_>>(), live.collect());
    }
}

type Change5 = (u8, i64, u8, u8, usize, isize);

fn changes() -> impl Strategy<Value = (Vec<Change5>, u8)> {
    // 0: it is sealed.
    let diff = prop_oneof![3 => Just(1isize), 1 => Just(-1), 1 => Just(0)];
    (prop::collection::vec((0u8..2, 0i64..60, 0u8..3, 0u8..3, 0usize..4, diff), 0..10), 0u8..4)
}

proptest! {
    #[test]
    fn what_was_said_adds_up_to_what_holds(epochs in prop::collection::vec(changes(), 1..10)) {
        let (mut kernel, mut sums, mut holds) = (Drivers::new(true), Sums::default(), BTreeMap::new());
        let mut sealed = BTreeMap::<DriverTrip, isize>::new();
        let mut kept = BTreeMap::<Vec<u8>, i64>::new();
        for (changes, then) in epochs {
            let mut step = Vec::new();
            for (driver, ended_at, id, fleet, policy, diff) in changes {
                let trip = trip(driver, ended_at / 6 * 6, id, fleet, policy);
                let count: &mut isize = holds.entry(trip.clone()).or_default();
                let stay = sealed.entry(trip.clone()).or_default();
                if diff == 0 && *stay < *count {
                    *stay += 1;
                    step.push((trip.clone(), -1));
                    step.push((DriverTrip { sealed: true, ..trip }, 1));
                } else if diff != 0 && *count + diff >= *stay {
                    *count += diff;
                    step.push((trip, diff));
                }
            }
            sums.add(kernel.step(step));
            sums.check(&holds);
            // Now and then a checkpoint, and a restart from it.
            if then == 0 || then == 1 {
                add_rows(&mut kept, &kernel.keep());
                kept.retain(|_, count| *count != 0);
            }
            if then == 0 {
                kernel = Drivers::new(true);
                kernel.restore(blocks(&kept)).unwrap();
                let mut recalled = Sums { rows: sums.rows.clone(), ..Sums::default() };
                kernel.recall(&mut |counted, standing| recalled.add(Said {
                    counted: counted.into_iter().map(|c| (c, 1)).collect(),
                    standings: standing.into_iter().map(|s| (s, 1)).collect(),
                    ..Said::default()
                }));
                recalled.check(&holds);
            }
        }
    }
}

#[test]
fn a_driver_is_found_in_a_row_and_damage_is_an_error() {
    let mut kernel = Drivers::new(true);
    kernel.step(vec![(trip(1, 1, 1, 1, 0), 1), (trip(0, 1, 1, 0, 0), 1)]);
    let kept = kernel.keep();
    let drivers: Vec<_> = kept.iter().map(|record| driver_of(record.key).unwrap()).collect();
    assert_eq!(drivers, [None, Some("d0"), Some("d1")]);
    assert!(driver_of(&[]).is_err() && kernel.keep().is_empty());
    let mut records = Records::sum();
    kept.iter().skip(1).for_each(|record| records.add(1, |out| out.extend_from_slice(record.key)));
    assert!(Drivers::new(true).restore(vec![records]).unwrap_err().contains("policy"));
}

/// 28 days, and a trip a day.
#[test]
fn a_sealed_trip_is_forgotten_when_a_newer_one_that_stays_outdates_it() {
    let (mut kernel, mut kept) = (Drivers::new(true), BTreeMap::<Vec<u8>, i64>::new());
    for day in 0..100 {
        let mut step = vec![(trip(0, day, 1, 1, 0), 1)];
        // Sealed after ten days.
        if day >= 10 {
            step.push((trip(0, day - 10, 1, 1, 0), -1));
            step.push((DriverTrip { sealed: true, ..trip(0, day - 10, 1, 1, 0) }, 1));
        }
        kernel.step(step);
        assert!(entries(&kernel.drivers["d0"]).len() <= 10 + 28);
        add_rows(&mut kept, &kernel.keep());
        kept.retain(|_, count| *count != 0);
    }
    // And the policy.
    assert_eq!(kept.len(), 10 + 28 + 1);
}

#[test]
fn a_sealed_trip_counts_again_when_the_newer_one_is_taken_back() {
    let (mut kernel, mut sums, old, new) =
        (Drivers::new(true), Sums::default(), trip(0, 0, 1, 1, 0), trip(0, 60, 2, 1, 0));
    for (changes, holds) in [
        (vec![(old.clone(), 1)], vec![&old]),
        (vec![(old.clone(), -1), (DriverTrip { sealed: true, ..old.clone() }, 1)], vec![&old]),
        (vec![(new.clone(), 1)], vec![&old, &new]),
        (vec![(new.clone(), -1)], vec![&old]),
    ] {
        sums.add(kernel.step(changes));
        sums.check(&holds.into_iter().map(|trip| (trip.clone(), 1)).collect());
    }
}
