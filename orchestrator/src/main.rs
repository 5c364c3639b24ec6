use std::process::ExitCode;

// Long-lived, many small allocations on several threads: what the system's allocator is slow at and fragments on.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Of each of tokio's threads, in bytes; only what is touched is there. The frames of nested futures are large where they
/// are not optimised, and a stack that is too small ends the whole process.
const THREAD_STACK: usize = 8 << 20;

fn main() -> ExitCode {
    let cli = match knarr::cli::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(knarr::cli::run(cli)),
        Err(error) => {
            eprintln!("the threads of this process cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
