//! The load of the latency runs: packed units at fixed instants (an open loop: what comes back does not slow it), and
//! probes beside them.
//!
//! Before the load a probe is sent again and again until the job has answered it. Then prints `{"began": …}` (s since
//! 1970), and at the end a line with what was sent, how late, and when each probe's result was readable.

use crate::pack::{UNIT, Units};
use crate::probes::{self, Probes};
use crate::produce;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the job may take until it answers the first probe.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the broker may take to answer when the load is over.
const DRAIN: Duration = Duration::from_secs(10);

/// A run: `warm` s, then `seconds` s whose probes count, then at most `tail` s under the same load until these are
/// answered.
pub struct Plan<'a> {
    /// The broker that leads all partitions, host:port.
    pub brokers: &'a str,
    pub topic: &'a str,
    /// The topic of results.
    pub scores: &'a str,
    /// What `pack` has written.
    pub file: &'a str,
    /// Readings a second.
    pub rate: f64,
    /// Probes a second.
    pub probes: f64,
    pub warm: f64,
    pub seconds: f64,
    pub tail: f64,
}

/// What was sent.
struct Sent {
    units: u64,
    /// Of these the broker has acknowledged.
    taken: u64,
    /// By how much each unit was late, µs.
    late: Vec<u64>,
    /// The time it took.
    seconds: f64,
    /// The file had enough for the time that counts.
    enough: bool,
}

pub fn pace(plan: &Plan<'_>) -> Result<(), String> {
    let mut units = Units::open(plan.file)?;
    let first = units.next().map_err(|e| e.to_string())?.ok_or("no units")?;
    let count = (plan.probes * (plan.warm + plan.seconds + plan.tail)).ceil() as usize;
    let probes = &Probes::new(count, first.at.clone());
    let sender = &probes::Sender::new(plan.brokers, plan.topic)?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| probes::read(plan.brokers, plan.scores, probes));
        let done = (|| {
            wait_for_job(probes, sender, &first.at)?;
            let began = Instant::now() + Duration::from_millis(100);
            probes.begin(began);
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()) + 0.1;
            println!("{{\"began\": {wall:.6}}}");
            std::io::stdout().flush().map_err(|e| e.to_string())?;
            let prober = scope.spawn(move || sender.run(probes, began, plan.probes));
            let sent = load(plan, units, probes, began);
            probes.over.store(true, Ordering::Relaxed);
            let late = prober.join().map_err(|_| "the probes' thread panicked")??;
            Ok::<_, String>((sent?, late))
        })();
        probes.stop.store(true, Ordering::Relaxed);
        reader.join().map_err(|_| "the reader panicked")??;
        let (sent, late) = done?;
        report(plan, probes, sent, late);
        Ok(())
    })
}

fn wait_for_job(probes: &Probes, sender: &probes::Sender, at: &str) -> Result<(), String> {
    let asked = Instant::now();
    while !probes.hello.load(Ordering::Relaxed) {
        if asked.elapsed() > PATIENCE {
            return Err(format!("the job has not answered within {} s", PATIENCE.as_secs()));
        }
        sender.hello(at)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Sends the load, and reads what the broker answers to it.
fn load(plan: &Plan<'_>, units: Units, probes: &Probes, began: Instant) -> Result<Sent, String> {
    let mut sender = produce::Sender::connect(plan.brokers, plan.topic)?;
    let mut answers = sender.answers()?;
    let (taken, failed) = (&AtomicU64::new(0), &OnceLock::new());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                match answers.next() {
                    Ok(()) => taken.fetch_add(1, Ordering::Relaxed),
                    Err(problem) => return failed.set(problem),
                };
            }
        });
        let sent = send(plan, units, probes, began, &mut sender);
        let (waited, count) = (Instant::now(), sent.as_ref().map_or(0, |sent| sent.units));
        while taken.load(Ordering::Relaxed) < count && failed.get().is_none() && waited.elapsed() < DRAIN {
            std::thread::sleep(Duration::from_millis(5));
        }
        let problem = failed.get().cloned();
        sender.close();
        match problem {
            Some(problem) => Err(problem),
            None => sent.map(|sent| Sent { taken: taken.load(Ordering::Relaxed), ..sent }),
        }
    })
}

/// Sends units when they are due, until the probes that count are answered or the time is over.
fn send(
    plan: &Plan<'_>,
    mut units: Units,
    probes: &Probes,
    began: Instant,
    sender: &mut produce::Sender,
) -> Result<Sent, String> {
    let end = began + Duration::from_secs_f64(plan.warm + plan.seconds);
    let last = end + Duration::from_secs_f64(plan.tail);
    let over = || Instant::now() >= last || (Instant::now() >= end && all_answered(plan, probes));
    let mut sent = Sent { units: 0, taken: 0, late: Vec::new(), seconds: 0.0, enough: true };
    while !over() {
        let Some(unit) = units.next().map_err(|e| e.to_string())? else {
            sent.enough &= Instant::now() >= end;
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let due = began + Duration::from_secs_f64(sent.units as f64 * UNIT as f64 / plan.rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        sent.late.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
        probes.reached(unit.at);
        sender.send(&unit.batches)?;
        sent.units += 1;
        sent.seconds = began.elapsed().as_secs_f64();
    }
    Ok(sent)
}

/// The probes that count have their results.
fn all_answered(plan: &Plan<'_>, probes: &Probes) -> bool {
    let (from, to) = ((plan.warm * plan.probes).ceil() as usize, ((plan.warm + plan.seconds) * plan.probes) as usize);
    let counted = probes.readable.get(from..to.min(probes.readable.len())).unwrap_or_default();
    counted.iter().all(|at| at.load(Ordering::Relaxed) > 0)
}

fn report(plan: &Plan<'_>, probes: &Probes, sent: Sent, late: Vec<u64>) {
    let readable: Vec<String> = probes.readable.iter().map(|at| at.load(Ordering::Relaxed).to_string()).collect();
    println!(
        "{{\"sent_per_s\": {}, \"taken\": {}, \"probes\": {}, \"enough\": {}, \"load_late_us\": {}, \"probes_late_us\": {}, \"readable_us\": [{}]}}",
        sent.units as f64 * UNIT as f64 / sent.seconds,
        sent.taken * UNIT as u64,
        late.len(),
        sent.enough,
        quantiles(sent.late, plan.warm * plan.rate / UNIT as f64),
        quantiles(late, plan.warm * plan.probes),
        readable.join(",")
    );
}

/// Of those after the warm-up, as JSON.
fn quantiles(mut late: Vec<u64>, skip: f64) -> String {
    late.drain(..(skip as usize).min(late.len()));
    late.sort_unstable();
    let at = |share: f64| late.get((late.len() as f64 * share) as usize).or(late.last()).copied().unwrap_or(0);
    format!("{{\"p50\": {}, \"p99\": {}, \"max\": {}}}", at(0.5), at(0.99), at(1.0))
}
