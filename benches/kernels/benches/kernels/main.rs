//! Criterion benches of each kernel; README.md says which measures what.

mod decode;
mod kernels;
mod results;
mod sequence;

use criterion::{Criterion, Throughput};
use std::time::Duration;

/// The program's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Vehicles, and seconds of each; a build without optimisation only sees whether everything runs.
const VEHICLES: usize = if cfg!(debug_assertions) { 10 } else { 200 };
const SECONDS: usize = if cfg!(debug_assertions) { 130 } else { 300 };

/// Records by the second, and their bytes.
fn of_records<T: AsRef<[u8]>>(records: &[T]) -> Throughput {
    let bytes = records.iter().map(|record| record.as_ref().len() as u64).sum();
    Throughput::ElementsAndBytes { elements: records.len() as u64, bytes }
}

/// Readings by the second, and the bytes of their values and heads in a batch.
fn of_readings(readings: usize) -> Throughput {
    let row = drivetrain_kernels::WIDTH * 8 + size_of::<drivetrain_schemas::reading::Head>();
    Throughput::ElementsAndBytes { elements: readings as u64, bytes: (readings * row) as u64 }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .without_plots()
        .configure_from_args();
    decode::benches(&mut criterion);
    sequence::benches(&mut criterion);
    kernels::benches(&mut criterion);
    results::benches(&mut criterion);
    criterion.final_summary();
}
