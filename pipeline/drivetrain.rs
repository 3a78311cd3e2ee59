//! The program; everything is in `drivetrain_pipeline`.

use std::process::ExitCode;

/// jemalloc, for C too: librdkafka allocates one operation a message, and state of many vehicles that is handed from
/// thread to thread takes a fifth less memory with it than with mimalloc, for the same CPU (docs/adr/0007).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a spike (a checkpoint, the end of the input) has taken goes back to the system after a second, by a thread of
/// its own; an arena for each core, and not four, keeps less that nobody uses (docs/adr/0007). jemalloc reads this name;
/// `MALLOC_CONF` overrides it.
#[allow(unsafe_code, reason = "jemalloc reads its options from a symbol of this name")]
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 80] =
    b"background_thread:true,percpu_arena:percpu,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    drivetrain_pipeline::cli::main()
}
