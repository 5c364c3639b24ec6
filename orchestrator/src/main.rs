use std::process::ExitCode;

use clap::Parser as _;

// Long-lived, many small allocations on several threads: what the system's allocator is slow at and fragments on.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    knarr::cli::run(knarr::cli::Cli::parse()).await
}
