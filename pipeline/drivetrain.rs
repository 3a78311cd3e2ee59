//! The program; everything is in `drivetrain_pipeline`.

use std::process::ExitCode;

/// librdkafka allocates one operation a message, so the allocator counts as much as the calls; the feature `override`
/// puts it in place for C too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    drivetrain_pipeline::cli::main()
}
