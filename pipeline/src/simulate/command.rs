//! `drivetrain simulate`.

use super::{DEFAULT_START, MIN_INTERVAL, SimHead, SimulateOptions, Simulator, kafka};
use drivetrain_schemas::time::{parse_duration, parse_rfc3339};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What can go wrong, in words for the person at the command line.
#[derive(Debug, Error)]
pub enum SimulateError {
    #[error("{0}")]
    Usage(String),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{topic} at {brokers}: {problem}")]
    Kafka { brokers: String, topic: String, problem: String },
    #[error("the output was closed")]
    Closed,
}

impl SimulateError {
    /// 2: the command line is wrong; 1: writing failed; 0: nobody reads the output any more.
    pub fn exit_code(&self) -> u8 {
        match self {
            SimulateError::Usage(_) => 2,
            SimulateError::Closed => 0,
            _ => 1,
        }
    }

    fn file(path: &Path, source: io::Error) -> SimulateError {
        match source.kind() {
            io::ErrorKind::BrokenPipe => SimulateError::Closed,
            _ => SimulateError::File { path: path.into(), source },
        }
    }
}

/// Makes the records of a plausible fleet: the same seed, the same bytes.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("to").required(true).args(["out", "brokers"])))]
pub struct SimulateArgs {
    /// How many vehicles.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub vehicles: u32,
    /// How much event time, such as 30s or 1h.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub duration: i64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Time between two readings of a vehicle, at least 1ms.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub interval: i64,
    /// Event time of the first readings [default: 2026-05-01T08:00:00Z].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub start: Option<i64>,
    /// Broken records for each good one, 0 to 1 (or with %).
    #[arg(long, value_name = "P", default_value = "0", value_parser = share)]
    pub broken: f64,
    /// Share of the records that come twice.
    #[arg(long, value_name = "P", default_value = "0", value_parser = share)]
    pub duplicates: f64,
    /// Share of the records that come 1 to 60 s late.
    #[arg(long, value_name = "P", default_value = "0", value_parser = share)]
    pub late: f64,
    /// Put sensor faults into every seventh vehicle.
    #[arg(long)]
    pub faults: bool,
    /// Write to this file, a record a line; .gz and .zst are compressed, `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write to Kafka (host:port,…).
    #[arg(long, requires = "topic")]
    pub brokers: Option<String>,
    /// The topic; created with four partitions when missing.
    #[arg(long, requires = "brokers")]
    pub topic: Option<String>,
    /// Records a second; as fast as possible without.
    #[arg(long, value_name = "R", requires = "brokers", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Write vehicles.jsonl, drivers.jsonl, fleets.jsonl (and faults.jsonl) to this directory.
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
}

impl SimulateArgs {
    /// The options of the simulation.
    ///
    /// # Errors
    /// An interval that is too short.
    pub fn options(&self) -> Result<SimulateOptions, SimulateError> {
        if self.interval < MIN_INTERVAL {
            return Err(SimulateError::Usage("--interval is at least 1ms: record times have milliseconds".into()));
        }
        Ok(SimulateOptions {
            vehicles: self.vehicles as usize,
            duration: self.duration,
            seed: self.seed,
            interval: self.interval,
            start: self.start.unwrap_or(DEFAULT_START),
            broken: self.broken,
            duplicates: self.duplicates,
            late: self.late,
            faults: self.faults,
        })
    }
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339(text).map_err(|e| e.to_string())
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |n| (n, 100.0));
    let share = number.trim().parse::<f64>().map(|v| v / scale);
    share.ok().filter(|v| (0.0..=1.0).contains(v)).ok_or_else(|| format!("{text:?} is not a share such as 0.01 or 1%"))
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    pub late: u64,
    pub duplicates: u64,
    /// By kind.
    pub broken: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(super) fn add(&mut self, head: &SimHead) {
        self.records += 1;
        self.duplicates += u64::from(head.duplicate);
        self.late += u64::from(head.late && !head.duplicate);
        if let Some(broken) = head.broken {
            *self.broken.entry(broken.kind).or_default() += 1;
        }
    }
}

/// Runs the command.
///
/// # Errors
/// See [`SimulateError`]; its exit code is [`SimulateError::exit_code`].
pub fn run(args: &SimulateArgs) -> Result<(), SimulateError> {
    match run_all(args) {
        // Who has closed the pipe has seen enough.
        Err(SimulateError::Closed) => Ok(()),
        done => done,
    }
}

fn run_all(args: &SimulateArgs) -> Result<(), SimulateError> {
    let mut simulator = Simulator::new(args.options()?);
    if let Some(directory) = &args.reference {
        write_reference(&simulator, directory)?;
    }
    let counts = match (&args.out, &args.brokers, &args.topic) {
        (Some(path), ..) => write_file(&mut simulator, path)?,
        (_, Some(brokers), Some(topic)) => kafka::produce(&mut simulator, brokers, topic, args.rate)?,
        _ => return Err(SimulateError::Usage("give --out FILE, or --brokers and --topic".into())),
    };
    if let Some(directory) = args.reference.as_ref().filter(|_| args.faults) {
        write_faults(&simulator, directory)?;
    }
    report(&counts, &simulator);
    Ok(())
}

fn report(counts: &Counts, simulator: &Simulator) {
    let broken: u64 = counts.broken.values().sum();
    eprintln!(
        "{} records: {} late, {} duplicates, {broken} broken, {} sensor faults",
        counts.records,
        counts.late,
        counts.duplicates,
        simulator.injected().len()
    );
    for (kind, count) in &counts.broken {
        eprintln!("  {count:>8}  {kind}");
    }
}

/// Writes the reference documents as JSON lines.
///
/// # Errors
/// The directory or a file can't be written.
pub fn write_reference(simulator: &Simulator, directory: &Path) -> Result<(), SimulateError> {
    std::fs::create_dir_all(directory).map_err(|e| SimulateError::file(directory, e))?;
    let documents = simulator.documents();
    for (name, text) in [("vehicles", documents.vehicles), ("drivers", documents.drivers), ("fleets", documents.fleets)]
    {
        let path = directory.join(format!("{name}.jsonl"));
        std::fs::write(&path, text).map_err(|e| SimulateError::file(&path, e))?;
    }
    Ok(())
}

fn write_faults(simulator: &Simulator, directory: &Path) -> Result<(), SimulateError> {
    let path = directory.join("faults.jsonl");
    let text: String = simulator.injected().iter().map(|f| f.to_json() + "\n").collect();
    std::fs::write(&path, text).map_err(|e| SimulateError::file(&path, e))
}

/// Writes all records but tombstones to a file, a record a line; the file's ending says how it is compressed.
///
/// # Errors
/// The file can't be written.
pub fn write_file(simulator: &mut Simulator, path: &Path) -> Result<Counts, SimulateError> {
    let failed = |e| SimulateError::file(path, e);
    if path.as_os_str() == "-" {
        return write_lines(simulator, &mut BufWriter::with_capacity(1 << 20, io::stdout().lock())).map_err(failed);
    }
    let file = File::create(path).map_err(failed)?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => {
            let encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            let mut out = BufWriter::with_capacity(1 << 20, encoder);
            let counts = write_lines(simulator, &mut out).map_err(failed)?;
            out.into_inner().map_err(|e| failed(e.into_error()))?.finish().map_err(failed)?;
            Ok(counts)
        }
        Some("zst") => {
            let encoder = zstd::Encoder::new(file, 3).map_err(failed)?;
            let mut out = BufWriter::with_capacity(1 << 20, encoder);
            let counts = write_lines(simulator, &mut out).map_err(failed)?;
            out.into_inner().map_err(|e| failed(e.into_error()))?.finish().map_err(failed)?;
            Ok(counts)
        }
        _ => write_lines(simulator, &mut BufWriter::with_capacity(1 << 20, file)).map_err(failed),
    }
}

fn write_lines(simulator: &mut Simulator, out: &mut impl Write) -> io::Result<Counts> {
    let (mut counts, mut bytes) = (Counts::default(), Vec::with_capacity(512));
    while let Some(head) = simulator.next_into(&mut bytes) {
        if head.broken.is_some_and(|b| b.is_tombstone()) {
            continue;
        }
        counts.add(&head);
        bytes.push(b'\n');
        out.write_all(&bytes)?;
    }
    out.flush()?;
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn every_compression_holds_the_same_lines() {
        let dir = tempfile::tempdir().unwrap();
        let options = SimulateOptions { vehicles: 20, broken: 0.05, late: 0.01, ..Default::default() };
        let write = |name: &str| {
            let path = dir.path().join(name);
            let counts = write_file(&mut Simulator::new(options.clone()), &path).unwrap();
            (counts, std::fs::read(path).unwrap())
        };
        let (counts, plain) = write("a.jsonl");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&write("a.jsonl.gz").1[..]).read_to_end(&mut text).unwrap();
        assert!(text == plain);
        assert!(zstd::decode_all(&write("a.jsonl.zst").1[..]).unwrap() == plain);
        assert_eq!(plain.iter().filter(|b| **b == b'\n').count() as u64, counts.records);
        assert!(!counts.broken.contains_key("tombstone") && counts.broken.len() >= 25, "{counts:?}");
    }

    #[test]
    fn shares_are_shares() {
        assert_eq!(share("0.01"), Ok(0.01));
        assert_eq!(share("5%"), Ok(0.05));
        for wrong in ["1.5", "-1", "x", "NaN", "200%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
