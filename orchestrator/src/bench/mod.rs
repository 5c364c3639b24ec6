//! `knarr bench`: how many sagas a second, how fast, and at what cost; and whether every one of them ended as it had to.
//!
//! Three kinds of processes take part: the orchestrator (`knarr server`, the same executable), a worker (`knarr
//! bench-worker`, built on the public SDK) and the client, which is this process. Client and worker share the machine
//! with what is measured, so they are made cheap: the client speaks NATS over a plain socket, both write preformatted
//! bodies, and neither parses more of a message than it has to.
//!
//! **Invariants**
//! - A saga counts only when its answer came, and an end that is not the expected one is never counted as a good one.
//! - What ran is judged by the worker's own records, not by what the orchestrator says.
//! - In an open loop latency runs from the moment a start was *due*, so that a stall is not hidden by the starts it held up.
//!
//! Not here: faults. What survives a `kill -9` is the matter of the tests.

mod child;
mod disk;
mod error;
mod figures;
mod footprint;
mod latency;
mod load;
mod metrics;
mod page;
mod processes;
mod record;
mod report;
mod run;
mod scenario;
mod sleepers;
mod sleepers_report;
mod stack;
mod start;
mod tally;
mod triggers;
mod triggers_report;
mod wire;
mod worker;

pub use error::{BenchError, CODES};
pub use figures::{Disk, Figures, Messages, Rows};
pub use footprint::Footprint;
pub use latency::Latency;
pub use load::Load;
pub use processes::PerProcess;
pub use report::Report;
pub use run::{BenchOptions, run};
pub use scenario::Scenario;
pub use sleepers::{Sleepers, sleep};
pub use sleepers_report::SleepersReport;
pub use triggers::{Events, trigger};
pub use triggers_report::TriggersReport;
pub use wire::WireError;
pub use worker::{WorkerOptions, work};
