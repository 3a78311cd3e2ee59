//! Figures by hand; the command itself is run by `tests/bench.rs`.

use super::report::{Line, Spread, rounded};
use super::*;

fn measured(part: Part, workers: u16, wall_s: f64, cpu_s: f64) -> Measured {
    Measured { part, workers, readings: 1_000_000, wall_s, cpu_s: Some(cpu_s), peak_bytes: Some(5_000_000) }
}

fn report(found: &[Measured]) -> Report {
    Report::new(Setting::new(10, 1_000_000, 317_000_000), 3, found)
}

/// A run in which each part costs what is usual, times `factor`.
fn run(factor: impl Fn(Part) -> f64) -> Vec<Line> {
    let bounds = guard::ratios(&[]);
    let of: std::collections::BTreeSet<Part> = bounds.iter().map(|ratio| ratio.of).collect();
    let usual = bounds.iter().map(|ratio| (ratio.part, ratio.usual));
    let costs = usual.chain(of.into_iter().map(|part| (part, 1.0)));
    let found: Vec<Measured> = costs.map(|(part, cost)| measured(part, 1, 1.0, cost * factor(part))).collect();
    report(&found).measurements
}

#[test]
fn targets_go_up_to_the_workers_asked_for() {
    let texts = |n| targets(n).iter().map(Target::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(texts(1), "stages answers/1 job/1");
    assert_eq!(texts(6), "stages answers/1 job/1 answers/2 job/2 answers/4 job/4 answers/6 job/6");
    assert!(targets(4).iter().all(|target| target.to_string().parse() == Ok(*target)));
    assert!("job".parse::<Target>().is_err() && "job/x".parse::<Target>().is_err() && "x/1".parse::<Target>().is_err());
}

#[test]
fn medians_and_spreads() {
    let rounds = [measured(Part::Job, 2, 2.0, 3.0), measured(Part::Job, 2, 1.0, 2.0), measured(Part::Job, 2, 4.0, 2.5)];
    let lines = report(&rounds).measurements;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].readings_per_second, Spread { median: 500_000.0, min: 250_000.0, max: 1_000_000.0 });
    assert_eq!(lines[0].cpu_ns_per_reading, Some(Spread { median: 2500.0, min: 2000.0, max: 3000.0 }));
    let even = report(&rounds[..2]).measurements;
    assert_eq!(even[0].readings_per_second.median, 750_000.0);
    let without = Measured { cpu_s: None, peak_bytes: None, ..rounds[0].clone() };
    let lines = report(&[without]).measurements;
    assert_eq!((lines[0].cpu_ns_per_reading, lines[0].peak_bytes), (None, None));
    let texts = [1_234_567.0, 999_600.0, 45_678.0, 999.0, 123_456.0, 12_345_678.0].map(rounded);
    assert_eq!(texts, ["1.23M", "1.00M", "45.7k", "999", "123k", "12.3M"]);
}

/// Everything is guarded that is no yardstick; half as much again passes as noise, twice the usual does not, whichever part
/// it is.
#[test]
fn the_guard_finds_a_doubling_of_each_part() {
    let holds = |factor: &dyn Fn(Part) -> f64| guard::check(&guard::ratios(&run(factor))).is_ok();
    assert!(holds(&|_| 1.0) && holds(&|_| 0.7) && holds(&|_| 20.0), "a slower machine is no regression");
    let noisy = |part: Part| if [Part::Parse, Part::Rows].contains(&part) { 1.0 } else { 1.5 };
    assert!(holds(&noisy));
    let guarded: Vec<Part> = guard::ratios(&[]).iter().map(|ratio| ratio.part).collect();
    assert_eq!(guarded, [Part::Decode, Part::Kernels, Part::Columns, Part::History, Part::Answers, Part::Job]);
    for part in guarded {
        let doubled = |p: Part| if p == part { 2.0 } else { 1.0 };
        let error = guard::check(&guard::ratios(&run(doubled))).unwrap_err();
        assert_eq!(error.matches(" : ").count(), 1, "{part:?}: {error}");
    }
    assert!(guard::check(&guard::ratios(&[])).is_err(), "what was not measured does not pass");
}

/// One round in which a part was slow does not count.
#[test]
fn the_guard_takes_the_least_of_the_rounds() {
    let rounds = |cpu: [f64; 3]| {
        let decode = cpu.map(|cpu| measured(Part::Decode, 1, 1.0, cpu));
        let parse = measured(Part::Parse, 1, 1.0, 1.0);
        let ratios = report(&[&decode[..], &[parse]].concat()).ratios;
        ratios.iter().find(|ratio| ratio.part == Part::Decode).and_then(|ratio| ratio.found)
    };
    assert_eq!(rounds([9.0, 0.25, 7.0]), Some(0.25));
}
