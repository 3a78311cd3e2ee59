//! `drivetrain demo`: an embedded broker, a simulated fleet, and the whole graph, in one process.
//!
//! Event time runs faster than the clock (trips of minutes complete within seconds), so that a newcomer sees driver
//! scores at once.

mod kafka;

use super::print_summary;
use crate::cli::Failure;
use crate::config::parse;
use crate::runtime::{JobOptions, JobReport, Mode, run_job};
use clap::Args;
use drivetrain_schemas::time::parse_duration;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The demo's configuration, shipped with the program.
const CONFIG: &str = include_str!("../../../configs/demo.toml");
/// Event time runs this many times faster than the clock.
const SPEED: u32 = 20;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How long to run, such as 30s; default: until Ctrl-C.
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<String>,
    /// Vehicles in the simulated fleet.
    #[arg(long, default_value_t = 200)]
    vehicles: usize,
    /// Where the results go; made afresh each time.
    #[arg(long, default_value = "drivetrain-demo")]
    data: PathBuf,
}

pub fn demo(args: DemoArgs) -> Result<(), Failure> {
    let limit = args.duration.as_deref().map(parse_duration).transpose().map_err(Failure::usage)?;
    let limit = limit.map(|us| Duration::from_micros(us.unsigned_abs()));
    let stop = super::stop_on_signals()?;
    let broker = kafka::Broker::start().map_err(Failure::job)?;
    let address = broker.address();
    let topics: Vec<&str> = kafka::topics().collect();
    println!("embedded broker at {address} (topics {})", topics.join(", "));
    println!("while the demo runs: kcat -b {address} -t driver_scores -C -e");
    std::fs::create_dir_all(&args.data).map_err(|e| Failure::usage(format!("{}: {e}", args.data.display())))?;
    kafka::reference(args.vehicles, &args.data.join("reference")).map_err(Failure::job)?;
    let fleet = kafka::Fleet::start(&broker, args.vehicles, SPEED, stop.clone()).map_err(Failure::job)?;
    println!("{} simulated vehicles, at {SPEED} times the speed of life", args.vehicles);
    println!("results in {} (Ctrl-C ends the demo, the results stay)\n", args.data.display());
    let copies = kafka::Copies::start(&broker, &args.data, stop.clone()).map_err(Failure::job)?;
    let reporter = Reporter::start(args.data.clone(), stop.clone(), limit);
    let report = job(&args, &address, stop.clone());
    stop.store(true, Ordering::Relaxed);
    reporter.finish();
    copies.finish();
    fleet.finish();
    let report = report?;
    print_summary(&report);
    let data = report.data.display();
    println!("\nwhat to try next:");
    println!(
        "  drivetrain sql --data {data} \"select driver_id, score, trips from driver_scores order by score limit 5\""
    );
    println!("  drivetrain live --data {data} fleet_aggregates");
    println!("  drivetrain sql --data {data}        (interactive)");
    Ok(())
}

fn job(args: &DemoArgs, brokers: &str, stop: Arc<AtomicBool>) -> Result<JobReport, Failure> {
    let config_path = args.data.join("demo.toml");
    let overrides = [("DRIVETRAIN_KAFKA__BROKERS".to_string(), format!("\"{brokers}\""))];
    let config = parse("demo.toml", CONFIG, overrides.into_iter()).map_err(Failure::job)?;
    let options = JobOptions {
        mode: Mode::Local,
        config,
        config_path,
        data: args.data.clone(),
        workers: None,
        cluster: None,
        fresh: true,
        at: None,
        stop,
        progress: false,
    };
    Ok(run_job(options)?)
}

/// Prints what has come so far, and ends the demo when its time is over.
struct Reporter {
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Reporter {
    fn start(data: PathBuf, stop: Arc<AtomicBool>, limit: Option<Duration>) -> Self {
        let thread = std::thread::Builder::new().name("report".into()).spawn(move || {
            let began = Instant::now();
            let mut said = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(50));
                let elapsed = began.elapsed();
                if elapsed >= said + Duration::from_secs(2) {
                    said = elapsed;
                    line(&data, elapsed);
                }
                if limit.is_some_and(|limit| elapsed >= limit) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        Self { thread: thread.ok() }
    }

    fn finish(self) {
        if let Some(thread) = self.thread {
            drop(thread.join());
        }
    }
}

/// One line about the fleet, from the live topics.
fn line(data: &std::path::Path, elapsed: Duration) {
    let latest = |topic| drivetrain_sinks::live::read_latest(data, topic).unwrap_or_default();
    let drivers = latest("driver_scores");
    let trips = latest("trip_scores").len();
    let score = |text: &String| serde_json::from_str::<serde_json::Value>(text).ok()?.get("score")?.as_f64();
    let mut scores: Vec<(f64, &String)> = drivers.iter().filter_map(|(id, text)| Some((score(text)?, id))).collect();
    scores.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    let worst = scores.first().map_or(String::new(), |(score, id)| format!(", lowest {id} with {score:.1}"));
    let active = latest("anomalies_active").len();
    println!(
        "{:>4} s: {trips} trips, {} drivers scored{worst}, {active} anomalies open",
        elapsed.as_secs(),
        scores.len()
    );
}
