use std::process::ExitCode;

// Long-lived, many small allocations on several threads: what the system's allocator is slow at and fragments on.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match knarr::cli::Cli::read(std::env::args_os()) {
        Ok(cli) => knarr::cli::run(cli).await,
        Err(error) => error.exit(),
    }
}
