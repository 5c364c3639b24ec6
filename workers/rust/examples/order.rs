//! A worker with the services of the order saga (`workers/examples/order.yaml`).
//!
//! ```text
//! cargo run -p knarr-worker --example order [nats://127.0.0.1:4222]
//! ```
//!
//! Start an order with `"fail": { "reserve-inventory": "failed" }` in its input to see it undone; the other ways to
//! misbehave are `unknown`, `flaky`, `slow`, `panic` and `crash` (see `knarr_worker::order_services`). Ctrl-C drains.

use std::sync::Arc;

use knarr_worker::order_services::{Effect, OrderOptions, order_services};
use knarr_worker::{CancellationToken, Context, Worker};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let client = knarr_worker::connect(&url).await?;

    let options = OrderOptions {
        recorder: Some(Arc::new(|ctx: &Context, effect: Effect| {
            println!(
                "{}  {:<18} attempt {}  {effect:?}",
                ctx.workflow_id(),
                ctx.activity(),
                ctx.attempt()
            );
        })),
        ..OrderOptions::default()
    };
    let worker = order_services(Worker::builder(client).queue("orders"), options).build()?;

    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    println!("serving the queue `orders` at {url}");
    worker.run(shutdown).await?;
    Ok(())
}
