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
//! - A task of a single attempt (`maximum_attempts: 1`) is claimed before its handler is called, and a claim is granted once:
//!   such a handler runs *at most once*, and a worker that dies in it leaves the step unknown.
//!
//! While a handler runs the worker beats for it: after a second, then every five, or as often as the activity's `heartbeat`
//! asks for. A worker that has missed three beats is taken for lost, long before its timeout. [`Context::heartbeat_with`] says
//! how far the work is, which the next attempt finds in [`Context::last_details`]. A handler that cannot wait for the end of
//! what it has begun returns [`Context::complete_later`]; whoever knows the end says so by a [`LaterTask`]. [`testing`] calls
//! handlers without any server.
//!
//! Not here: retries, backoff and timeouts between attempts, which are the orchestrator's.

mod connect;
mod context;
mod drain;
mod error;
mod flight;
mod handler;
mod inbox;
mod later;
mod outcome;
mod pull;
mod sweep;
mod task;
pub mod testing;
mod worker;

pub mod barrier;
pub mod body;
pub mod order_services;

pub use connect::{ConnectError, connect, connect_options};
pub use context::{Context, DetailsError, Direction};
pub use error::ActivityError;
pub use later::{LaterError, LaterTask};
pub use tokio_util::sync::CancellationToken;
pub use worker::{BuildError, RunError, Worker, WorkerBuilder};
