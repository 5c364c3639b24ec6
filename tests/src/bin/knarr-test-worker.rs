//! The services of the order saga, with a durable record: `knarr-test-worker <nats url> <namespace> <queue> <record file>
//! <work in ms>`. Ends when its standard input closes, so that it never outlives a test.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use knarr_tests::record::{Execution, RecordWriter};
use knarr_worker::order_services::{Effect, OrderOptions, order_services};
use knarr_worker::{CancellationToken, Context, Worker};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, namespace, queue, record, work_ms] = arguments.as_slice() else {
        anyhow::bail!("five arguments are needed");
    };
    let record = RecordWriter::open(Path::new(record))?;
    let options = OrderOptions {
        work: Duration::from_millis(work_ms.parse()?),
        slow: Duration::from_secs(20),
        recorder: Some(Arc::new(move |ctx: &Context, effect: Effect| {
            record.write(&Execution::of(ctx, effect));
        })),
        ..OrderOptions::default()
    };
    let client = loop {
        match knarr_worker::connect(url).await {
            Ok(client) => break client,
            Err(error) => {
                eprintln!("{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let worker = order_services(Worker::builder(client).namespace(namespace).queue(queue), options).build()?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    std::thread::spawn(move || {
        // Its end is all that matters.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.cancel();
    });
    worker.run(shutdown).await?;
    Ok(())
}
