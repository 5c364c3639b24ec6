//! Write Knarr activity workers in Rust: typed async handlers, called for the tasks of one queue.
//!
//! ```no_run
//! use knarr_worker::{ActivityError, CancellationToken, Context, Worker};
//!
//! #[derive(serde::Deserialize)]
//! struct Charge { order_id: String, amount: u64 }
//! #[derive(serde::Serialize)]
//! struct Charged { payment_id: String }
//!
//! # async fn main_() -> Result<(), Box<dyn std::error::Error>> {
//! let client = knarr_worker::connect("nats://127.0.0.1:4222").await?;
//! Worker::builder(client)
//!     .queue("orders")
//!     .activity("process-payment", |ctx: Context, input: Charge| async move {
//!         if input.amount > 1_000_000 {
//!             return Err(ActivityError::failed("too_much", "over the limit").non_retryable());
//!         }
//!         // Charging under `ctx.idempotency_key()` makes a repeat of the task harmless.
//!         Ok(Charged { payment_id: format!("pay-{}-{}", input.order_id, ctx.attempt()) })
//!     })
//!     .build()?
//!     .run(CancellationToken::new())
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! **Invariants**
//! - A task is acknowledged only after its result was confirmed: by PostgreSQL's commit (the direct inlet) or by the
//!   log's acknowledgement. Whatever dies in between, the task is delivered again; handlers run *at least once*, and the
//!   idempotency key is theirs to use.
//! - No more tasks are taken than there are free slots, and no more results wait for confirmation than allowed.
//! - A panic or an error that the handler did not call *failed* is *unknown*: the step will be undone if the run fails.
//!
//! Not here: retries, backoff and timeouts between attempts (the orchestrator's), and claims for at-most-once activities.

mod connect;
mod context;
mod drain;
mod error;
mod flight;
mod handler;
mod inbox;
mod outcome;
mod pull;
mod sweep;
mod task;
mod worker;

pub mod barrier;
pub mod order_services;

pub use connect::{ConnectError, connect, connect_options};
pub use context::{Context, Direction};
pub use error::ActivityError;
pub use tokio_util::sync::CancellationToken;
pub use worker::{BuildError, RunError, Worker, WorkerBuilder};
