use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Instant;

fn jsonl(times: impl IntoIterator<Item = i64>) -> String {
    times.into_iter().map(|t| format!("{{\"t\":{t}}}\n")).collect()
}

#[test]
fn epochs_by_count_are_the_same_each_time_and_the_last_one_ends() {
    let directory = tempfile::tempdir().unwrap();
    let inputs = [
        format!("a={}", write(directory.path(), "a.jsonl", jsonl((0..57).map(|i| i * 20)))),
        format!("b={}", write(directory.path(), "b.jsonl", jsonl((0..31).map(|i| i * 35)))),
    ];
    let run = || replay(job(vec![source("a", ""), source("b", "")], &inputs));
    let (one, two) = (run(), run());
    assert_eq!(one.epochs, two.epochs);
    assert_eq!(one.records().len(), 88);
    assert!(one.epochs.iter().rev().skip(1).all(|(_, r)| r.len() == 10));
    let numbers: Vec<i64> = one.tickets.iter().map(|t| t.epoch).collect();
    assert_eq!(numbers, (0..numbers.len() as i64).collect::<Vec<_>>());
    assert!(one.tickets.windows(2).all(|w| w[0].wall <= w[1].wall && !w[0].end));
    assert!(one.tickets.last().unwrap().end && !one.stopped);
    assert!(one.tickets[0].bindings.is_empty());
}

#[test]
fn recorded_bindings_give_the_same_epochs() {
    let directory = tempfile::tempdir().unwrap();
    let lines = |n: i64| jsonl((0..n).map(|i| i * 7)).replacen("{\"t\":7}\n", "\n{\"t\":7}\n", 1);
    let inputs = [
        format!("a={}", write(directory.path(), "a/1.jsonl", lines(23))),
        format!("a={}", write(directory.path(), "a/2.csv", "x\n1\n2\n3\n")),
        format!("b={}", write(directory.path(), "b.jsonl", lines(40))),
    ];
    let sources = || vec![source("a", ""), source("b", "")];
    let recorded = replay(job(sources(), &inputs));
    let log: String = recorded.tickets.iter().map(|t| serde_json::to_string(t).unwrap() + "\n").collect();
    let log = write(directory.path(), "bindings.jsonl", log);
    let tickets = read_bindings(Path::new(&log)).unwrap();
    assert_eq!(tickets, recorded.tickets);
    let mut again = job(sources(), &inputs);
    // Other settings: the bindings decide.
    again.epochs.max_records = 3;
    again.epochs.chunk_records = 7;
    again.plan = Plan { tickets: tickets.clone(), go_on: false };
    let again = replay(again);
    assert_eq!(again.epochs, recorded.epochs);
    assert_eq!(again.tickets, recorded.tickets);

    // Another file under the same name is noticed.
    write(directory.path(), "b.jsonl", lines(5));
    let mut other = job(sources(), &inputs);
    other.plan = Plan { tickets, go_on: false };
    let (_, result) = launch(other).finish(|_| false);
    assert!(matches!(result, Err(SourceError::Differs { .. })), "{result:?}");
}

#[test]
fn a_gap_in_the_bindings_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = write(
        directory.path(),
        "b",
        "{\"epoch\":1,\"wall\":0,\"bindings\":[]}\n{\"epoch\":3,\"wall\":0,\"bindings\":[]}\n",
    );
    let error = read_bindings(Path::new(&log)).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("missing"), "{error}");
}

#[test]
fn bindings_that_do_not_begin_with_epoch_0_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let lines = "{\"epoch\":7,\"wall\":1000000,\"bindings\":[]}\n{\"epoch\":8,\"wall\":2000000,\"bindings\":[]}\n";
    let refused = |text: &str| {
        let log = write(directory.path(), "bindings/g1.jsonl", text);
        let errors = [log.as_ref(), directory.path().join("bindings").as_path()].map(read_bindings);
        errors.map(|error| error.unwrap_err().to_string())
    };
    for error in refused(lines) {
        for part in ["7 (ended 1970-01-01T00:00:01Z) to 8", "from epoch 0 on", "history.bindings"] {
            assert!(error.contains(part), "{part:?} is missing in {error}");
        }
    }
    refused("").iter().for_each(|error| assert!(error.contains("no epoch is recorded"), "{error}"));
}

#[test]
fn a_restart_repeats_the_bound_epochs_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let inputs = [
        write(directory.path(), "1.csv", format!("x\n{}", "1\n".repeat(14))),
        write(directory.path(), "2.csv", format!("y\n{}", "2\n".repeat(40))),
    ];
    let whole = replay(job(vec![source("s", "")], &inputs));
    // The checkpoint is at epoch 2; 3 and 4 are bound after it.
    let mut positions = BTreeMap::new();
    for binding in whole.tickets.iter().take(3).flat_map(|t| &t.bindings) {
        positions.insert(binding.origin.clone(), binding.clone());
    }
    let mut rest = job(vec![source("s", "")], &inputs);
    rest.committed.store(4, Ordering::Relaxed);
    rest.resume = Some(Resume { next_epoch: 3, bindings: positions.into_values().collect(), ..Resume::default() });
    rest.plan = Plan { tickets: whole.tickets[3..5].to_vec(), go_on: true };
    let rest = replay(rest);
    assert_eq!(rest.epochs, whole.epochs.iter().filter(|(e, _)| *e > 2).cloned().collect::<Vec<_>>());
    assert_eq!(rest.tickets.last().unwrap().epoch, whole.tickets.last().unwrap().epoch);
}

#[test]
fn nothing_is_read_beyond_max_in_flight_and_a_stop_is_heard_there() {
    let directory = tempfile::tempdir().unwrap();
    let input = write(directory.path(), "a.jsonl", jsonl(0..1000));
    let mut job = job(vec![source("s", "")], &[input]);
    job.epochs.max_in_flight = 3;
    let running = launch(job);
    let tickets = |n| {
        let got: Vec<_> = (0..n).map(|_| running.tickets.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        assert!(running.tickets.recv_timeout(Duration::from_millis(100)).is_err(), "more than {n} epochs");
        got
    };
    tickets(3);
    running.committed.store(1, Ordering::Release);
    tickets(2);
    running.stop.store(true, Ordering::Relaxed);
    let last = running.tickets.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(matches!(last, Message::Ticket(t) if t.epoch == 5 && !t.end));
    let summary = running.thread.join().unwrap().unwrap();
    assert_eq!((summary.ended, summary.last_epoch), (false, Some(5)));
    let flushed = running.workers[1].try_iter().filter(|m| matches!(m, ToWorker::Epoch { flush: true, .. })).count();
    assert_eq!(flushed, 1);
}

#[test]
fn time_closes_epochs_in_a_running_job_only_and_silence_makes_some() {
    let settings = epochs(EpochConfig { max_records: 5, ..EpochConfig::default() });
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    for mode in [Mode::Run, Mode::Replay] {
        let run = mode == Mode::Run;
        let mut ticker = super::super::ticker::Ticker::new(settings, mode, 1, start);
        assert!(!ticker.due(at(500), || 9));
        assert!(!ticker.wants_empty(at(199)));
        assert_eq!(ticker.wants_empty(at(200)), run);
        ticker.begin(at(1000));
        ticker.gave(4);
        assert!(!ticker.due(at(1019), || panic!("not asked before")));
        assert_eq!(ticker.due(at(1020), || 4), run);
        // More is waiting than the epoch has: it goes on, but not for ever.
        assert!(!ticker.due(at(1020), || 5) && !ticker.due(at(1499), || 5));
        assert_eq!(ticker.due(at(1500), || 5), run);
        ticker.gave(1);
        assert!(ticker.due(at(1001), || 9));
        assert_eq!(ticker.close(at(1020)), 1);
        assert!(!ticker.is_open() && ticker.epoch() == 2 && ticker.room() == 5);
        assert!(ticker.may_begin(-6) && !ticker.may_begin(-7));
    }
    let refused = |config: EpochConfig| config.resolve(Pending::default()).unwrap_err().0;
    assert_eq!(refused(EpochConfig { interval: "20".into(), ..EpochConfig::default() }), "interval");
    assert_eq!(refused(EpochConfig { chunk_records: 0, ..EpochConfig::default() }), "chunk_records");
}

/// When the empty epochs end that an idle job makes, in ms after its last input: looked at each 10 ms, but not while
/// `stalled`.
fn empty_epochs(settings: EpochSettings, stalled: std::ops::Range<u64>) -> Vec<u64> {
    let start = Instant::now();
    let mut ticker = super::super::ticker::Ticker::new(settings, Mode::Run, 1, start);
    ticker.begin(start);
    ticker.close(start + settings.interval);
    let mut made = Vec::new();
    for ms in (20..200_000).step_by(10).filter(|ms| !stalled.contains(ms)) {
        let now = start + Duration::from_millis(ms);
        if ticker.wants_empty(now) {
            ticker.close(now);
            made.push(ms);
        }
    }
    made
}

#[test]
fn an_epoch_comes_after_everything_that_is_pending_and_then_none() {
    let settled = epochs(EpochConfig::default());
    assert_eq!(settled.settle, Duration::from_secs(12), "quiet, 2 s, and 10 s");
    let made = empty_epochs(settled, 0..0);
    assert!(made.windows(2).all(|w| w[1] - w[0] == 200), "{made:?}");
    assert!((12_000..12_200).contains(made.last().unwrap()), "{made:?}");
    // Commits that take half a minute hold epochs back, but not for ever.
    let made = empty_epochs(settled, 1_000..31_000);
    assert!(made.last() >= Some(&31_000) && made.iter().filter(|ms| **ms > 1_000).count() == 1, "{made:?}");

    // Whatever is pending is said, by the default and by every setting that is not refused.
    for (quiet, vehicle_state_every) in [(2, 1), (90, 1), (2, 100), (0, 0)] {
        let pending = Pending { quiet: quiet * 1_000_000, vehicle_state_every: vehicle_state_every * 1_000_000 };
        let longest = quiet.max(vehicle_state_every) as u64;
        for settle in [None, Some(longest), Some(longest + 1)] {
            let config = EpochConfig { settle: settle.map(|s| format!("{s}s")), ..EpochConfig::default() };
            match config.resolve(pending) {
                Ok(settings) => {
                    assert_ne!(settle, Some(longest));
                    assert!(empty_epochs(settings, 0..0).last() >= Some(&(longest * 1000)), "{pending:?} {settle:?}");
                }
                Err((field, reason)) => {
                    assert_eq!((field, settle), ("settle", Some(longest)));
                    let name = if quiet >= vehicle_state_every { "time.quiet" } else { "live.vehicle_state_every" };
                    assert!(reason.contains(name) && reason.contains(&format!("\"{}s\"", longest + 10)), "{reason}");
                }
            }
        }
    }
}

/// Chunks in the order in which the only worker got them.
fn in_order(job: Job) -> Vec<Seen> {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let (committer, tickets) = crossbeam_channel::unbounded();
    job.committed.store(i64::MAX / 2, Ordering::Relaxed);
    let thread = start(job, Outlet { workers: vec![sender], committer, wake: Box::new(|_| {}) }).unwrap();
    thread.join().unwrap().unwrap();
    drop(tickets);
    let mut seen = Vec::new();
    for message in receiver.try_iter() {
        if let ToWorker::Chunk { chunk, .. } = message {
            chunk.for_each(|r| seen.push((chunk.partition.source.to_string(), r.position, body(&r))));
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn two_sources_stay_within_the_skew_of_each_other(
        steps in prop::collection::vec(prop::collection::vec(0i64..50, 1..300), 2..4),
        chunk_records in 1usize..200,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut inputs = Vec::new();
        let mut times = BTreeMap::<String, Vec<i64>>::new();
        for (i, steps) in steps.iter().enumerate() {
            let own: Vec<i64> = steps.iter().scan(0, |t, s| { *t += s; Some(*t) }).collect();
            inputs.push(format!("s{i}={}", write(directory.path(), &format!("{i}.jsonl"), jsonl(own.clone()))));
            times.insert(format!("s{i}"), own);
        }
        let sources = times.keys().map(|name| source(name, "")).collect();
        let mut job = job(sources, &inputs);
        job.epochs.max_records = 100_000;
        job.epochs.chunk_records = chunk_records;
        let seen = in_order(job);
        prop_assert_eq!(seen.len(), steps.iter().map(Vec::len).sum::<usize>());
        // Whenever a record is handed out, no other source still has one that is more than max_skew (60 s) older.
        let mut next = BTreeMap::<&str, usize>::new();
        for (source, position, _) in &seen {
            let at = times[source][*position as usize - 1];
            for (other, times) in &times {
                if other != source && let Some(waiting) = times.get(next.get(other.as_str()).copied().unwrap_or(0)) {
                    prop_assert!(at <= waiting + 60, "{} at {} while {} waits at {}", source, at, other, waiting);
                }
            }
            prop_assert_eq!(*position as usize, next.get(source.as_str()).copied().unwrap_or(0) + 1);
            next.insert(source, *position as usize);
        }
    }
}
