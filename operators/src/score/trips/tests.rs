use super::*;
use crate::score::tests::{blocks, harsh, policies};
use crate::testing::add_rows;
use proptest::prelude::*;

/// A fact of few kinds, so that equal ones come again.
fn fact(vehicle: u8, started_at: i64, open: bool, stated: u8, braking: bool) -> TripFact {
    let harsh = if braking { vec![harsh(-500_000, 1)] } else { Vec::new() };
    TripFact {
        trip_id: format!("t{started_at}").into(),
        vehicle: format!("v{vehicle}").into(),
        driver: Some("d".into()),
        fleet: fleet(stated),
        open,
        // By another criterion than the vehicle.
        whole: started_at % 3 == 0,
        started_at,
        ended_at: started_at + 9,
        samples: 9,
        duration: 9,
        distance: None,
        max_speed: None,
        speeding: Some(3),
        harsh,
    }
}

fn fleet(n: u8) -> Option<Arc<str>> {
    (n > 0).then(|| format!("f{n}").into())
}

/// The state of the world, as tables.
#[derive(Clone, Default)]
struct World {
    facts: BTreeMap<TripFact, isize>,
    timelines: BTreeMap<Arc<str>, Timeline>,
    pages: BTreeMap<Option<Arc<str>>, Page>,
    /// By vehicle, and of those sent whole.
    lines: BTreeMap<(Arc<str>, bool), i64>,
    /// What is said of sealed facts, for good.
    sealed: BTreeMap<Scored, isize>,
}

impl World {
    /// Everything that holds, computed anew.
    fn scored(&self) -> BTreeMap<Scored, isize> {
        let mut all = self.sealed.clone();
        for (fact, count) in &self.facts {
            let book = Book(self.pages.clone());
            judge(&Arc::new(fact.clone()), self.timelines.get(&fact.vehicle), &book, &mut |scored| {
                *all.entry(scored).or_default() += count;
            });
        }
        all
    }

    /// Whether it is one that its vehicle's line may seal.
    fn is_before(&self, fact: &TripFact) -> bool {
        let line = self.lines.get(&(fact.vehicle.clone(), fact.whole));
        !fact.open && line.is_some_and(|line| fact.ended_at < *line)
    }

    /// Moves the lines, after an epoch with these facts. Returns what drivers have of the trips that are sealed.
    fn seal(&mut self, facts: &[(TripFact, isize)], retention: i64) -> Vec<DriverTrip> {
        for (fact, _) in facts.iter().filter(|(fact, diff)| *diff > 0 && !fact.open) {
            let line = self.lines.entry((fact.vehicle.clone(), fact.whole)).or_insert(i64::MIN);
            *line = (*line).max(sealing::line(fact.ended_at, retention));
        }
        let mut last = BTreeMap::new();
        self.facts.retain(|_, count| *count != 0);
        for fact in self.facts.keys().filter(|fact| self.is_before(fact)) {
            let last = last.entry((fact.vehicle.clone(), fact.whole)).or_insert(i64::MIN);
            *last = fact.ended_at.max(*last);
        }
        let mut said = Vec::new();
        for (fact, count) in self.facts.clone() {
            if self.is_before(&fact) && fact.ended_at != last[&(fact.vehicle.clone(), fact.whole)] {
                let alone = World { facts: [(fact.clone(), count)].into(), sealed: BTreeMap::new(), ..self.clone() };
                for (scored, count) in alone.scored() {
                    (0..count).for_each(|_| said.extend(scored.driver_trip()));
                    *self.sealed.entry(scored).or_default() += count;
                }
                self.facts.remove(&fact);
            }
        }
        said
    }

    /// The documents from nothing.
    fn documents(&self) -> Changes {
        Changes {
            facts: Vec::new(),
            timelines: self.timelines.clone().into_iter().map(|timeline| (timeline, 1)).collect(),
            pages: self.pages.clone().into_iter().map(|page| (page, 1)).collect(),
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Fact { vehicle: u8, started_at: i64, open: bool, stated: u8, braking: bool, diff: isize },
    Timeline { vehicle: u8, timeline: Option<Vec<(i64, u8)>> },
    Page { fleet: u8, policies: Option<Vec<(u32, usize)>> },
    Checkpoint,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let timeline = prop::collection::btree_map(0i64..5, 0u8..3, 0..3).prop_map(|t| t.into_iter().collect());
    let page = prop::collection::btree_set((0u32..3, 0usize..4), 0..4).prop_map(|p| p.into_iter().collect());
    prop_oneof![
        8 => (0u8..3, prop_oneof![0i64..5, 0i64..40], any::<bool>(), 0u8..3, any::<bool>(), prop_oneof![Just(1isize), Just(-1)]).prop_map(
            |(vehicle, started_at, open, stated, braking, diff)| Event::Fact { vehicle, started_at, open, stated, braking, diff }
        ),
        2 => (0u8..3, prop::option::of(timeline)).prop_map(|(vehicle, timeline)| Event::Timeline { vehicle, timeline }),
        2 => (0u8..3, prop::option::of(page)).prop_map(|(fleet, policies)| Event::Page { fleet, policies }),
        1 => Just(Event::Checkpoint),
        1 => Just(Event::Restart),
    ]
}

/// Takes an event over into the world and into the changes of an epoch.
fn apply(world: &mut World, changes: &mut Changes, event: Event) {
    match event {
        Event::Fact { vehicle, started_at, open, stated, braking, diff } => {
            let fact = fact(vehicle, started_at, open, stated, braking);
            let is_before = world.is_before(&fact);
            let count = world.facts.entry(fact.clone()).or_default();
            // What is before the line has been and does not come any more.
            if *count + diff >= 0 && !(diff > 0 && is_before) {
                *count += diff;
                changes.facts.push((fact, diff));
            }
        }
        Event::Timeline { vehicle, timeline } => {
            let vehicle: Arc<str> = format!("v{vehicle}").into();
            if let Some(old) = world.timelines.remove(&vehicle) {
                changes.timelines.push(((vehicle.clone(), old), -1));
            }
            if let Some(timeline) = timeline {
                let timeline: Timeline = timeline.into_iter().map(|(from, n)| (from, fleet(n))).collect();
                world.timelines.insert(vehicle.clone(), timeline.clone());
                changes.timelines.insert(0, ((vehicle, timeline), 1));
            }
        }
        Event::Page { fleet: n, policies: chosen } => {
            if let Some(old) = world.pages.remove(&fleet(n)) {
                changes.pages.push(((fleet(n), old), -1));
            }
            if let Some(chosen) = chosen {
                let page: Page = chosen.into_iter().map(|(near, i)| (near, policies()[i].clone())).collect();
                world.pages.insert(fleet(n), page.clone());
                changes.pages.insert(0, ((fleet(n), page), 1));
            }
        }
        Event::Checkpoint | Event::Restart => {}
    }
}

/// A page or timeline changes at most once in an epoch, as a reduction says it.
fn documents_once(events: &[Event]) -> Vec<Event> {
    let mut seen = BTreeSet::new();
    let mut once = |event: &&Event| match event {
        Event::Timeline { vehicle, .. } => seen.insert((0, *vehicle)),
        Event::Page { fleet, .. } => seen.insert((1, *fleet)),
        _ => true,
    };
    events.iter().filter(|event| once(event)).cloned().collect()
}

proptest! {
    #[test]
    fn what_was_said_adds_up_to_what_holds(
        epochs in prop::collection::vec(prop::collection::vec(event(), 0..12), 1..12),
        retention in prop::option::of(prop_oneof![Just(4i64), Just(200)]),
    ) {
        let new = || Trips::new(true, retention);
        let (mut world, mut kernel, mut said) = (World::default(), new(), BTreeMap::<Scored, isize>::new());
        let mut kept = BTreeMap::<Vec<u8>, i64>::new();
        for events in epochs {
            let mut changes = Changes::default();
            let restart = events.iter().any(|e| matches!(e, Event::Restart));
            let checkpoint = restart || events.iter().any(|e| matches!(e, Event::Checkpoint));
            documents_once(&events).into_iter().for_each(|event| apply(&mut world, &mut changes, event));
            let facts = changes.facts.clone();
            let mut sealed = kernel.step(changes, &mut |scored, diff| *said.entry(scored).or_default() += diff);
            let mut expected = retention.map_or(Vec::new(), |retention| world.seal(&facts, retention));
            sealed.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(sealed, expected);
            said.retain(|_, count| *count != 0);
            let mut expected = world.scored();
            expected.retain(|_, count| *count != 0);
            prop_assert_eq!(&said, &expected);
            if checkpoint {
                add_rows(&mut kept, &kernel.keep());
            }
            if restart {
                kept.retain(|_, count| *count != 0);
                for row in kept.keys() {
                    let fact: TripFact = unpack(row).unwrap();
                    prop_assert_eq!(vehicle_of(row).unwrap(), &*fact.vehicle);
                }
                kernel = new();
                kernel.restore(blocks(&kept)).unwrap();
                kernel.restore_documents(world.documents());
            }
        }
    }
}

proptest! {
    /// Whatever comes, also before the line: who is restarted after each epoch seals and says what one does who never is.
    #[test]
    fn a_restart_changes_nothing(epochs in prop::collection::vec(prop::collection::vec(event(), 0..6), 1..16)) {
        let (mut world, mut undisturbed, mut restarted) = (World::default(), Trips::new(true, Some(4)), Trips::new(true, Some(4)));
        let mut kept = BTreeMap::<Vec<u8>, i64>::new();
        for events in epochs {
            let run = |kernel: &mut Trips, changes: Changes| {
                let mut said = BTreeMap::<Scored, isize>::new();
                let mut sealed = kernel.step(changes, &mut |scored, diff| *said.entry(scored).or_default() += diff);
                sealed.sort_unstable();
                let held = kernel.keep();
                (said, sealed, held)
            };
            let mut changes = [Changes::default(), Changes::default()];
            let before = world.clone();
            for (world, changes) in [before.clone(), before].iter_mut().zip(&mut changes) {
                documents_once(&events).into_iter().for_each(|event| apply(world, changes, event));
            }
            documents_once(&events).into_iter().for_each(|event| apply(&mut world, &mut Changes::default(), event));
            let [first, second] = changes;
            let (one, other) = (run(&mut undisturbed, first), run(&mut restarted, second));
            prop_assert_eq!(&one, &other);
            add_rows(&mut kept, &one.2);
            // What is sealed cannot be taken back.
            world.facts = kept.iter().filter(|(_, n)| **n > 0).map(|(row, n)| (unpack(row).unwrap(), *n as isize)).collect();
            kept.retain(|_, count| *count != 0);
            restarted = Trips::new(true, Some(4));
            restarted.restore(blocks(&kept)).unwrap();
            restarted.restore_documents(world.documents());
        }
    }
}

#[test]
fn an_ended_trip_takes_little_room() {
    let mut kernel = Trips::new(false, None);
    let facts = (0..1000).map(|i| (fact(0, i, false, 1, true), 1)).collect();
    let _ = kernel.step(Changes { facts, ..Changes::default() }, &mut |_, _| {});
    let held = &kernel.vehicles["v0"];
    assert!(held.ended.capacity() < 1000 * 40 && held.stated.len() == 1, "{} bytes", held.ended.capacity());
    let facts = (0..1000).map(|i| (fact(0, i, false, 1, true), -1)).collect();
    let _ = kernel.step(Changes { facts, ..Changes::default() }, &mut |_, _| {});
    assert!(kernel.vehicles["v0"].ended.is_empty());
}

#[test]
fn what_is_older_than_the_retention_leaves_memory_and_checkpoints() {
    let (mut kernel, mut rows) = (Trips::new(true, Some(640)), BTreeMap::<Vec<u8>, i64>::new());
    for i in 0..2000 {
        let facts = vec![(fact(0, 10 * i, false, 1, true), 1)];
        let sealed = kernel.step(Changes { facts, ..Changes::default() }, &mut |_, _| {});
        // No policy: nothing that drivers would have.
        assert!(sealed.is_empty());
    }
    // 64 trips within it, and, of those sent whole and of the others, one before and one for a step of the line.
    let held = packed(&kernel.vehicles["v0"].ended).count();
    assert!((66..=68).contains(&held), "{held}");
    add_rows(&mut rows, &kernel.keep());
    assert_eq!(rows.len(), held);
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_an_error() {
    let mut records = Records::sum();
    records.add(1, |out| out.extend_from_slice(&[9, b'x']));
    assert!(Trips::new(true, None).restore(vec![records]).is_err());
}
