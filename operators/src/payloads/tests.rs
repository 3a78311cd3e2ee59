use super::*;
use crate::facts::{EventFact, TripFact};
use crate::score::trips::{Changes, Trips};
use crate::testing::{SECOND, Setup, add_rows};
use drivetrain_schemas::reading::NULL;
use proptest::prelude::*;

fn cfg() -> KernelConfig {
    let mut setup = Setup::default();
    setup.trip.id_unique = true;
    setup.build()
}

/// Everything that is true after some epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Net {
    trips: BTreeMap<TripFact, isize>,
    events: BTreeMap<EventFact, isize>,
    /// By circumstances, time and values.
    readings: BTreeMap<(Meta, i64, Vec<i64>), i64>,
    /// Used ones, duplicates and late ones.
    counts: BTreeMap<Arc<Origin>, [i64; 3]>,
}

impl Net {
    fn add(&mut self, said: Said) {
        said.facts.trips.into_iter().for_each(|(fact, diff)| *self.trips.entry(fact).or_default() += diff);
        said.facts.events.into_iter().for_each(|(fact, diff)| *self.events.entry(fact).or_default() += diff);
        for (batch, diff) in said.readings {
            for (i, head) in batch.heads.iter().enumerate() {
                let row = ((**batch.meta(i)).clone(), head.at, batch.row(i).to_vec());
                *self.readings.entry(row).or_default() += diff;
            }
        }
        for (origin, c) in said.counts {
            let IntakeCounts { used, duplicates, late, .. } = c;
            assert_eq!(c, IntakeCounts { used, duplicates, late, ..IntakeCounts::default() });
            let sums = self.counts.entry(origin).or_default();
            *sums = [sums[0] + used, sums[1] + duplicates, sums[2] + late];
        }
        self.tidy();
    }

    /// What is true of other trips, too.
    fn plus(mut self, other: Net) -> Net {
        other.trips.into_iter().for_each(|(fact, n)| *self.trips.entry(fact).or_default() += n);
        other.events.into_iter().for_each(|(fact, n)| *self.events.entry(fact).or_default() += n);
        other.readings.into_iter().for_each(|(row, n)| *self.readings.entry(row).or_default() += n);
        for (origin, counts) in other.counts {
            let sums = self.counts.entry(origin).or_default();
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        self.tidy();
        self
    }

    fn tidy(&mut self) {
        self.trips.retain(|_, n| *n != 0);
        self.events.retain(|_, n| *n != 0);
        self.readings.retain(|_, n| *n != 0);
        self.counts.retain(|_, n| *n != [0, 0, 0]);
    }
}

/// The contract, word by word, over all payloads at once.
fn reference(cfg: &KernelConfig, received: &[TripPayload]) -> Net {
    /// Only the content: the order of fields is that of contents.
    fn content(payload: &TripPayload) -> TripPayload {
        let first = payload.samples.first().map_or(0, |s| s.at);
        let mut bare = payload.clone();
        bare.samples.iter_mut().for_each(|s| s.at -= first);
        let origin = Arc::new(Origin { source: "".into(), name: "".into(), partition: 0 });
        TripPayload { record_time: 0, origin, position: 0, sample_interval: 0, ..bare }
    }
    let mut trips: BTreeMap<(&str, &str), BTreeMap<TripPayload, Vec<&TripPayload>>> = BTreeMap::new();
    for payload in received {
        let contents = trips.entry((&payload.vehicle, &payload.trip_id)).or_default();
        contents.entry(content(payload)).or_default().push(payload);
    }
    let mut net = Net::default();
    for contents in trips.values() {
        let latest = |copies: &[&TripPayload]| copies.iter().map(|p| p.record_time).max();
        let (_, copies) = contents.iter().max_by_key(|(content, copies)| (latest(copies), *content)).unwrap();
        let sent = |p: &TripPayload| {
            (p.record_time, p.origin.clone(), p.position, p.samples.first().map(|s| s.at), p.sample_interval)
        };
        let counts = **copies.iter().min_by_key(|p| sent(p)).as_ref().unwrap();
        let (trip, events) = trip_payload_facts(cfg, counts);
        *net.trips.entry(trip).or_default() += 1;
        events.into_iter().for_each(|event| *net.events.entry(event).or_default() += 1);
        for sample in &counts.samples {
            *net.readings.entry((meta(counts, sample), sample.at, sample.values.clone())).or_default() += 1;
        }
        net.counts.entry(counts.origin.clone()).or_default()[0] += 1;
        for payload in contents.values().flatten() {
            net.counts.entry(payload.origin.clone()).or_default()[1] += 1;
        }
        net.counts.entry(counts.origin.clone()).or_default()[1] -= 1;
    }
    net
}

/// Samples that are one second apart, by their g-force; the last at the record's time, or the first at a time of its own.
fn payload(record_time: i64, g: &[i64], own: Option<i64>) -> TripPayload {
    let first = own.unwrap_or(record_time - g.len() as i64 + 1);
    let sample = |(i, g): (usize, &i64)| TripSample {
        at: (first + i as i64) * SECOND,
        values: vec![*g, NULL, 3600, NULL],
        texts: if *g == 7 { vec![(3, "x".into())] } else { vec![] },
    };
    TripPayload {
        trip_id: "t1".into(),
        record_time: record_time * SECOND,
        vehicle: "v1".into(),
        driver: Some("d1".into()),
        fleet: None,
        quality: None,
        tags: None,
        samples: g.iter().enumerate().map(sample).collect(),
        origin: Arc::new(Origin { source: "s".into(), name: "topic".into(), partition: 0 }),
        position: record_time,
        sample_interval: SECOND,
    }
}

const CONTENTS: [&[i64]; 5] = [&[100_000], &[100_000, -500_000], &[-500_000, 600_000, 7], &[7], &[]];

fn arbitrary() -> impl Strategy<Value = TripPayload> {
    let content = (prop::sample::select(&CONTENTS), prop::option::weighted(0.3, 0i64..2));
    let who = (prop::sample::select(&["v1", "v2"]), prop::sample::select(&["t1", "t2"]), 0u8..8);
    let place = (0i32..3, 0i64..3, 1i64..3);
    (0i64..5, content, who, place).prop_map(
        |(time, (g, own), (vehicle, trip, driver), (partition, position, interval))| TripPayload {
            vehicle: vehicle.into(),
            trip_id: trip.into(),
            driver: (driver > 0).then(|| "d1".into()),
            origin: Arc::new(Origin { source: "s".into(), name: "topic".into(), partition }),
            position,
            sample_interval: interval * SECOND,
            ..payload(time, g, own)
        },
    )
}

/// A list of payloads and another order of it.
fn two_orders() -> impl Strategy<Value = (Vec<TripPayload>, Vec<TripPayload>)> {
    prop::collection::vec(arbitrary(), 0..16).prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever the order and the epochs, after each epoch the net of all that was said is what the contract says of
    /// what was received; also when the state was written down and read back in between.
    #[test]
    fn any_order_in_any_epochs_says_what_the_contract_says(
        (list, shuffled) in two_orders(),
        ends in prop::collection::vec(prop::bool::weighted(0.4), 16),
        restarted in 0usize..16,
    ) {
        let cfg = cfg();
        let (mut state, mut net, mut from) = (State::default(), Net::default(), 0);
        for to in 1..=shuffled.len() {
            if !ends[to - 1] && to < shuffled.len() {
                continue;
            }
            net.add(step(&cfg, &mut state, shuffled[from..to].to_vec()));
            prop_assert_eq!(&net, &reference(&cfg, &shuffled[..to]));
            if (from..to).contains(&restarted) {
                let text = serde_json::to_string(&state).unwrap();
                state = serde_json::from_str(&text).unwrap();
            }
            from = to;
        }
        let mut at_once = State::default();
        let mut other = Net::default();
        other.add(step(&cfg, &mut at_once, list));
        prop_assert_eq!(&net, &other);
        prop_assert_eq!(state, at_once, "the state is a function of the set of payloads");
    }

    /// What was said of a sealed trip stays; what ended before the line of the epochs before and is of no known trip is late;
    /// all else is as if sealed trips had never been. Nothing that [`Trips`] seals is taken back.
    #[test]
    fn what_is_sealed_stays_and_what_comes_of_it_is_late(
        list in prop::collection::vec(arbitrary(), 0..24),
        ends in prop::collection::vec(prop::bool::weighted(0.4), 24),
        restarted in 0usize..24,
    ) {
        let cfg = KernelConfig { facts_retention: Some(SECOND), ..cfg() };
        let (mut state, mut net, mut from) = (State::default(), Net::default(), 0);
        let (mut sealed, mut alive, mut lines) = (Net::default(), Vec::new(), BTreeMap::<Arc<str>, i64>::new());
        let (mut trips, mut held) = (Trips::new(true, Some(SECOND)), BTreeMap::<Vec<u8>, i64>::new());
        for to in 1..=list.len() {
            if !ends[to - 1] && to < list.len() {
                continue;
            }
            let same = |p: &TripPayload, q: &TripPayload| (&p.vehicle, &p.trip_id) == (&q.vehicle, &q.trip_id);
            let is_known = |p: &TripPayload| alive.iter().any(|q| same(p, q));
            let is_before = |p: &TripPayload| lines.get(&p.vehicle).is_some_and(|line| ended_at(p) < *line);
            let is_late = |p: &TripPayload| is_before(p) && !is_known(p);
            let (late, timely): (Vec<_>, Vec<_>) = list[from..to].iter().cloned().partition(is_late);
            alive.extend(timely);
            let said = step(&cfg, &mut state, list[from..to].to_vec());
            let changes = Changes { facts: said.facts.trips.clone(), ..Changes::default() };
            let _ = trips.step(changes, &mut |_, _| {});
            add_rows(&mut held, &trips.keep());
            prop_assert!(held.values().all(|count| *count >= 0), "a sealed trip was taken back");
            prop_assert_eq!(said.late.len(), late.len());
            net.add(said);
            late.iter().for_each(|p| sealed.counts.entry(p.origin.clone()).or_default()[2] += 1);
            let holds = reference(&cfg, &alive);
            prop_assert_eq!(&net, &sealed.clone().plus(holds.clone()));
            for fact in holds.trips.keys() {
                let before = lines.entry(fact.vehicle.clone()).or_insert(i64::MIN);
                *before = line(fact.ended_at, SECOND).max(*before);
            }
            let gone: Vec<_> = holds.trips.keys().filter(|fact| fact.ended_at < lines[&fact.vehicle]).collect();
            let is_gone = |p: &TripPayload| gone.iter().any(|f| (&f.vehicle, &f.trip_id) == (&p.vehicle, &p.trip_id));
            let (leaving, staying): (Vec<_>, Vec<_>) = alive.into_iter().partition(is_gone);
            sealed = sealed.plus(reference(&cfg, &leaving));
            alive = staying;
            let known: usize = state.vehicles.values().map(|vehicle| vehicle.trips.len()).sum();
            prop_assert_eq!(known, reference(&cfg, &alive).trips.len());
            if (from..to).contains(&restarted) {
                let text = serde_json::to_string(&state).unwrap();
                state = serde_json::from_str(&text).unwrap();
            }
            from = to;
        }
    }

    /// What an epoch says, row by row, does not depend on the order within it.
    #[test]
    fn an_epoch_is_a_set((list, shuffled) in two_orders(), cut in 0usize..16) {
        let cfg = cfg();
        let cut = cut.min(list.len());
        let run = |second: &[TripPayload]| {
            let mut state = State::default();
            step(&cfg, &mut state, list[..cut].to_vec());
            let said = step(&cfg, &mut state, second.to_vec());
            (said.facts, said.readings, said.counts)
        };
        let rest = &list[cut..];
        let mut other: Vec<TripPayload> = shuffled.iter().filter(|p| rest.contains(p)).cloned().collect();
        // Equal payloads on both sides of the cut.
        while other.len() > rest.len() {
            let surplus = other.iter().position(|p| {
                other.iter().filter(|q| *q == p).count() > rest.iter().filter(|q| *q == p).count()
            });
            other.remove(surplus.unwrap());
        }
        prop_assert_eq!(run(rest), run(&other));
    }
}

fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for i in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(i);
        all.extend(permutations(&rest).into_iter().map(|p| [vec![first.clone()], p].concat()));
    }
    all
}

/// Start of the trip that counts in the end and its number of samples, by each order of arrival, one an epoch.
fn winners(payloads: &[TripPayload]) -> Vec<(i64, i64)> {
    let cfg = cfg();
    let winner = |order: Vec<TripPayload>| {
        let (mut state, mut net) = (State::default(), Net::default());
        order.into_iter().for_each(|payload| net.add(step(&cfg, &mut state, vec![payload])));
        assert_eq!(net.trips.len(), 1);
        assert_eq!(net.counts.values().copied().collect::<Vec<_>>(), [[1, payloads.len() as i64 - 1, 0]]);
        net.trips.keys().map(|trip| (trip.started_at / SECOND, trip.samples)).next().unwrap()
    };
    let mut winners: Vec<_> = permutations(payloads).into_iter().map(winner).collect();
    winners.dedup();
    winners
}

#[test]
fn the_last_writer_wins_and_stands_where_it_was_first_sent() {
    let (a, b): (&[i64], &[i64]) = (&[1, 2], &[1, 2, 3]);
    // Sent twice: the earlier record time stays.
    assert_eq!(winners(&[payload(10, a, None), payload(50, a, None)]), [(9, 2)]);
    // Corrected; and a redelivery of either, before the correction and at its time, changes nothing.
    assert_eq!(winners(&[payload(10, a, None), payload(30, b, None)]), [(28, 3)]);
    assert_eq!(winners(&[payload(10, a, None), payload(30, b, None), payload(20, a, None)]), [(28, 3)]);
    assert_eq!(winners(&[payload(10, a, None), payload(30, b, None), payload(30, a, None)]), [(28, 3)]);
    assert_eq!(winners(&[payload(10, a, None), payload(30, b, None), payload(40, b, None)]), [(28, 3)]);
    // The first content sent anew after the correction replaces it, and stands where it was first sent.
    assert_eq!(winners(&[payload(10, a, None), payload(30, b, None), payload(50, a, None)]), [(9, 2)]);
    // An earlier copy of the winner never makes it lose.
    assert_eq!(winners(&[payload(50, a, None), payload(30, b, None), payload(10, a, None)]), [(9, 2)]);
    // At one record time the larger content counts.
    assert_eq!(winners(&[payload(30, a, None), payload(30, b, None)]), [(28, 3)]);
}

#[test]
fn a_copy_says_nothing_but_its_count() {
    let cfg = cfg();
    let mut state = State::default();
    step(&cfg, &mut state, vec![payload(10, &[-500_000], Some(3))]);
    for copy in [payload(20, &[-500_000], Some(3)), payload(5, &[-500_000], Some(3))] {
        let said = step(&cfg, &mut state, vec![copy]);
        assert_eq!((said.facts, said.readings), (Facts::default(), vec![]));
        assert_eq!(said.counts.iter().map(|(_, c)| (c.used, c.duplicates)).collect::<Vec<_>>(), [(0, 1)]);
    }
}

/// It stands in the state, and so in checkpoints: another hash would forget what was sent before.
#[test]
fn the_hash_of_a_content_never_changes() {
    assert_eq!(hash(&payload(10, &[-500_000, 7], None)), hash(&payload(99, &[-500_000, 7], Some(1))));
    assert_eq!(format!("{:032x}", hash(&payload(10, &[-500_000, 7], None))), "dc26025e09683ef0d2037f8c4f352680");
}

#[test]
fn a_payload_that_is_late_is_kept_whole() {
    let cfg = KernelConfig { facts_retention: Some(100 * SECOND), ..cfg() };
    let mut state = State::default();
    step(&cfg, &mut state, vec![payload(1_000, &[100_000], None)]);
    let late = TripPayload { trip_id: "t\"2".into(), ..payload(10, &[-500_000, 7], None) };
    let said = step(&cfg, &mut state, vec![late]);
    assert_eq!((said.facts, said.readings.len(), said.late.len()), (Facts::default(), 0, 1));
    let late = &said.late[0];
    assert_eq!((late.position, late.record_time, &*late.reason), (10, 10 * SECOND, "late"));
    assert!(late.detail.contains("1970-01-01T00:00:10Z: before 1970-01-01T00:15:0"), "{}", late.detail);
    let text = String::from_utf8(late.payload.clone().unwrap()).unwrap();
    assert_eq!(
        text,
        "{\"trip_id\":\"t\\\"2\",\"vehicle_id\":\"v1\",\"at\":\"1970-01-01T00:00:10Z\",\"driver_id\":\"d1\",\"data\":[\
         {\"at\":\"1970-01-01T00:00:09Z\",\"g_force_long\":-0.500000,\"speed_kmh\":36.00},\
         {\"at\":\"1970-01-01T00:00:10Z\",\"g_force_long\":0.000007,\"speed_kmh\":36.00,\"temperature\":\"x\"}]}"
    );
}
