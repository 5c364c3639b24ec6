//! Says everything twice: whatever is published to the log is published again, at once and once more later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt as _;

use crate::Stack;

const MARK: &str = "X-Copy";
/// Of the second copy, behind the first.
const LATER: Duration = Duration::from_secs(3);

/// Works until it is dropped.
#[derive(Debug)]
pub struct Duplicator {
    task: tokio::task::JoinHandle<()>,
    copies: Arc<AtomicU64>,
}

impl Duplicator {
    pub async fn start(stack: &Stack) -> Self {
        let client = stack.nats().clone();
        let mut said = client.subscribe("knarr.run.>").await.unwrap();
        client.flush().await.unwrap();
        let copies: Arc<AtomicU64> = Arc::default();
        let counter = Arc::clone(&copies);
        let task = tokio::spawn(async move {
            while let Some(message) = said.next().await {
                let mut headers = message.headers.clone().unwrap_or_default();
                if headers.get(MARK).is_some() {
                    continue;
                }
                headers.insert(MARK, "yes");
                let (client, counter) = (client.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    for pause in [Duration::ZERO, LATER] {
                        tokio::time::sleep(pause).await;
                        publish(&client, &message, headers.clone()).await;
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { task, copies }
    }

    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }
}

async fn publish(client: &Client, message: &async_nats::Message, headers: async_nats::HeaderMap) {
    let sent = client.publish_with_headers(message.subject.clone(), headers, message.payload.clone());
    // A copy that is lost is one less.
    let _ = sent.await;
}

impl Drop for Duplicator {
    fn drop(&mut self) {
        self.task.abort();
    }
}
