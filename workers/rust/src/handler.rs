//! From a typed handler to a spawned task: decode, call, encode, hand in.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use knarr_schemas::header;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;

use crate::body::{self, BodyError};
use crate::context::{Context, TaskInfo};
use crate::error::ActivityError;
use crate::flight::Flight;
use crate::outcome::Outcome;

/// More than any orchestrator takes, so that what it sent is read.
const MOST_INPUT_BYTES: usize = 16 << 20;
/// With the pauses between them, six seconds.
const STORE_TRIES: u32 = 7;
/// Of what no message takes: some minutes, should start-to-close leave them.
const PATIENT_TRIES: u32 = 60;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What a result has beside its body, at most.
const HEADERS_BYTES: usize = 4 << 10;

/// A handler with its types erased. It spawns by itself, so that an activity costs one allocation for its future.
pub(crate) trait Handler: Send + Sync {
    fn spawn(self: Arc<Self>, flight: Arc<Flight>, task: Arc<TaskInfo>, input: Bytes) -> AbortHandle;
}

pub(crate) struct Typed<F, I> {
    call: F,
    input: PhantomData<fn() -> I>,
}

impl<F, I> Typed<F, I> {
    pub(crate) fn new(call: F) -> Self {
        Self {
            call,
            input: PhantomData,
        }
    }
}

/// Frees the slot however the future ends: done, aborted, or dropped with the runtime.
struct Slot(Arc<Flight>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slot_free();
    }
}

impl<F, I, O, Fut> Handler for Typed<F, I>
where
    F: Fn(Context, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, ActivityError>> + Send + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
{
    fn spawn(self: Arc<Self>, flight: Arc<Flight>, task: Arc<TaskInfo>, input: Bytes) -> AbortHandle {
        flight.slot_taken();
        let handling = Arc::clone(&flight);
        let slot = Slot(flight);
        let run = async move {
            let input = match task.header(header::BODY) {
                None => Ok(input),
                Some(object) => fetch(&handling.client, &task, object).await,
            };
            let outcome = match input {
                Ok(input) => outcome(&self.call, &task, &input).await,
                Err(error) => Outcome::Error(Box::new(error)),
            };
            let outcome = match outcome {
                Outcome::Completed(output) if output.len() > body::MAX_INLINE_BYTES => {
                    store(&handling.client, &task, output).await
                }
                outcome => outcome,
            };
            slot.0.hand_in(&task, outcome).await;
        };
        tokio::spawn(run).abort_handle()
    }
}

/// The input that is an object. A later attempt brings another one, should this have gone.
async fn fetch(client: &async_nats::Client, task: &TaskInfo, object: &str) -> Result<Bytes, ActivityError> {
    let namespace = task.header(header::NAMESPACE).unwrap_or_default();
    let digest = task.header(header::BODY_DIGEST);
    let mut pause = Duration::from_millis(100);
    let mut tries = 0;
    loop {
        tries += 1;
        match body::get(client, namespace, object, digest, MOST_INPUT_BYTES).await {
            Ok(input) => return Ok(input),
            // Start-to-close ends this, should nothing else do so.
            Err(BodyError::Unavailable(problem)) => {
                tracing::debug!("a task's input is not there yet: {problem}");
            }
            // Nor does a bucket answer that has no leader yet.
            Err(BodyError::NoBucket(bucket)) if tries < STORE_TRIES => {
                tracing::debug!("the bucket `{bucket}` is not there yet");
            }
            Err(error) => return Err(task.refused("body_missing", error.to_string())),
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// An output that is too large for its message; where it cannot be stored it is tried in the message all the same.
async fn store(client: &async_nats::Client, task: &TaskInfo, output: Bytes) -> Outcome {
    let namespace = task.header(header::NAMESPACE).unwrap_or_default();
    // Else its step would wait for an operator, though the work is done and the store only away.
    let fits = output.len() + HEADERS_BYTES <= client.server_info().max_payload;
    let most = if fits { STORE_TRIES } else { PATIENT_TRIES };
    let mut pause = Duration::from_millis(100);
    let mut tries = 0;
    loop {
        tries += 1;
        match body::put(client, namespace, &output).await {
            Ok(reference) => return Outcome::Stored(reference),
            Err(BodyError::Unavailable(problem)) if tries < most => {
                tracing::debug!("a result is not stored yet: {problem}");
            }
            Err(BodyError::NoBucket(bucket)) if tries < STORE_TRIES => {
                tracing::debug!("the bucket `{bucket}` is not there yet");
            }
            Err(error) => {
                tracing::warn!("a result of {} bytes is not stored as an object: {error}", output.len());
                return Outcome::Completed(output);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// What becomes of a task whose handler is called with this input, JSON.
pub(crate) async fn outcome<F, I, O, Fut>(call: &F, task: &Arc<TaskInfo>, input: &[u8]) -> Outcome
where
    F: Fn(Context, I) -> Fut,
    Fut: Future<Output = Result<O, ActivityError>>,
    I: DeserializeOwned,
    O: Serialize,
{
    let handler = async {
        let output = match decode(input) {
            Ok(input) => call(Context(Arc::clone(task)), input).await?,
            Err(reason) => return Err(task.refused("bad_input", reason).non_retryable()),
        };
        encode(&output)
    };
    match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(Ok(output)) => Outcome::Completed(output),
        Ok(Err(error)) => Outcome::Error(Box::new(error)),
        Err(panic) => {
            let message = panic_message(panic.as_ref());
            tracing::error!(
                activity = task.header(header::ACTIVITY),
                "a handler panicked: {message}"
            );
            Outcome::Error(Box::new(ActivityError::unknown("panic", message)))
        }
    }
}

fn decode<I: DeserializeOwned>(input: &[u8]) -> Result<I, String> {
    let input = if input.is_empty() { b"null".as_slice() } else { input };
    serde_json::from_slice(input).map_err(|error| format!("the activity does not understand its input: {error}"))
}

fn encode<O: Serialize>(output: &O) -> Result<Bytes, ActivityError> {
    serde_json::to_vec(output).map(Bytes::from).map_err(|error| {
        // The work is done; only its answer is lost.
        ActivityError::unknown("bad_output", format!("the activity's output is no JSON: {error}")).non_retryable()
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the handler panicked".to_owned())
}
