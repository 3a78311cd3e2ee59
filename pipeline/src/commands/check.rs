//! `drivetrain check`: the effective configuration, and what it makes of some records. Writes nothing.

use super::load;
use crate::cli::Failure;
use crate::config::{Config, Resolved};
use crate::source;
use crate::source::{Chunk, SourceError};
use clap::Args;
use drivetrain_schemas::catalogue::{Catalogue, SignalType};
use drivetrain_schemas::decode::Decoder;
use drivetrain_schemas::fixed;
use drivetrain_schemas::reading::{Accept, Head, IntakeCounts, Interned, NULL, Reject, TripPayload};
use drivetrain_schemas::time::format_rfc3339;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration.
    #[arg(long)]
    config: PathBuf,
    /// Show what becomes of the records of this file (or SOURCE=FILE).
    #[arg(long, value_name = "FILE")]
    input: Option<String>,
    /// How many records to show.
    #[arg(short = 'n', default_value_t = 20, value_name = "N")]
    records: usize,
}

pub fn check(args: CheckArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let resolved = Resolved::new(&config, &args.config, None).map_err(Failure::usage)?;
    match args.input {
        None => print_config(&config, &resolved),
        Some(input) => show(&resolved, &input, args.records, config.limits.max_record),
    }
}

fn print_config(config: &Config, resolved: &Resolved) -> Result<(), Failure> {
    let mut shown = config.clone();
    let masked = config.kafka.masked_properties();
    shown.kafka.properties = masked.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let text = toml::to_string_pretty(&shown).map_err(|e| Failure::job(format!("can't be shown: {e}")))?;
    println!("{text}");
    let fastest = resolved.kernels.intervals.values().min().copied().unwrap_or(1_000_000);
    let per_vehicle = drivetrain_operators::sequence::memory_per_vehicle(&resolved.kernels, fastest);
    println!("# expected memory: about {} KB a vehicle, for rewinding within hot_horizon", per_vehicle.div_ceil(1024));
    println!("# hash of what results depend on: {}", resolved.hash);
    Ok(())
}

fn show(resolved: &Resolved, input: &str, records: usize, limit: usize) -> Result<(), Failure> {
    let failure = |e: SourceError| if e.is_usage() { Failure::usage(e) } else { Failure::job(e) };
    let (source, chunks) = source::head(&resolved.sources, input, records, limit).map_err(failure)?;
    let context = resolved.contexts.get(usize::from(source)).ok_or_else(|| Failure::job("no such source"))?;
    let mut decoder = Decoder::new(context, &resolved.catalogue).map_err(Failure::usage)?;
    decoder.track_unmapped(true);
    let mut printer = Printer { catalogue: &resolved.catalogue };
    let mut counts = IntakeCounts::default();
    let each = |chunk: &Chunk| chunk.for_each(|record| decoder.decode(&record, &mut counts, &mut printer));
    chunks.iter().for_each(each);
    println!(
        "{} records: {} decoded into {} readings, {} rejected, {} invalid values",
        counts.records, counts.decoded, counts.readings, counts.rejected, counts.invalid_values
    );
    let unmapped: Vec<String> = decoder.unmapped().map(|(name, n)| format!("{name} ({n})")).collect();
    if !unmapped.is_empty() {
        println!("fields that are not mapped: {}", unmapped.join(", "));
    }
    Ok(())
}

/// Prints what a decoder makes of records.
struct Printer<'a> {
    catalogue: &'a Catalogue,
}

impl Printer<'_> {
    fn values(&self, values: &[i64]) -> String {
        let known = self.catalogue.signals.iter().zip(values).filter(|(_, v)| **v != NULL);
        let text = known.map(|(s, v)| match s.kind {
            SignalType::Bool => format!("{}={}", s.name, *v == 1),
            _ => format!("{}={}", s.name, fixed::to_f64(i128::from(*v), s.decimals)),
        });
        text.collect::<Vec<_>>().join(" ")
    }
}

impl Accept for Printer<'_> {
    fn reading(&mut self, head: Head, Interned { meta, .. }: Interned<'_>, values: &[i64], _invalid: &[u16]) {
        let mut line = format!("{:>6}  {}  vehicle={}", head.position, format_rfc3339(head.at), meta.vehicle);
        for (name, value) in [("driver", &meta.driver), ("trip", &meta.trip), ("fleet", &meta.fleet)] {
            if let Some(value) = value {
                line += &format!(" {name}={value}");
            }
        }
        println!("{line} {}", self.values(values));
    }

    fn trip(&mut self, trip: TripPayload) {
        println!(
            "{:>6}  trip {} of vehicle {}: {} samples",
            trip.position,
            trip.trip_id,
            trip.vehicle,
            trip.samples.len()
        );
        for sample in trip.samples.iter().take(3) {
            println!("        {}  {}", format_rfc3339(sample.at), self.values(&sample.values));
        }
    }

    fn reject(&mut self, reject: Reject) {
        println!("{:>6}  rejected: {}: {}", reject.position, reject.reason, reject.detail);
    }
}
