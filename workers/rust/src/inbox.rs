//! What arrives at the worker's one inbox: confirmations, acknowledgements of the log, answers to beats, and the server's
//! word that nobody listens; and cancellations pushed to the queue.

use std::borrow::Cow;
use std::sync::Arc;

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use knarr_schemas::body::{BeatAnswer, CancelTasks, ClaimAnswer, ErrorBody};
use knarr_schemas::code;
use serde::Deserialize;

use crate::flight::{Flight, State, Way};
use crate::task::claimed;

/// [`knarr_schemas::body::Confirmation`], read without copying the tokens.
#[derive(Deserialize)]
struct Confirmation<'a> {
    #[serde(borrow)]
    results: Vec<Confirmed<'a>>,
    #[serde(borrow, default)]
    moved: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Confirmed<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(default)]
    refused: Option<ErrorBody>,
}

/// JetStream's acknowledgement, as far as it matters here.
#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

pub(crate) async fn read_inbox(flight: Arc<Flight>, mut inbox: Subscriber) {
    while let Some(message) = inbox.next().await {
        let Some(place) = message.subject.get(flight.inbox.len() + 1..) else {
            continue;
        };
        let nobody = message.status == Some(StatusCode::NO_RESPONDERS);
        match place.split_once('.').unwrap_or((place, "")) {
            ("r", token) if nobody => no_owner(&flight, token).await,
            // The stream is not there just now; the sweep repeats.
            ("l", token) if nobody => tracing::debug!(token, "the log is not there to take a result"),
            ("l", token) => stored(&flight, token, &message).await,
            // The sweep asks again: without an owner nothing is granted. What was asked for by a beat it begins.
            ("b" | "k", _) if nobody => {}
            ("k", token) => claim_answered(&flight, token, &message).await,
            ("b", token) => beat_answered(&flight, token, &message).await,
            // Whoever answers one result at its reply subject confirms it just as well.
            ("c" | "r", _) => confirmed(&flight, &message).await,
            _ => tracing::debug!(subject = %message.subject, "an unexpected message in the worker's inbox"),
        }
    }
}

async fn confirmed(flight: &Flight, message: &Message) {
    let confirmation: Confirmation<'_> = match serde_json::from_slice(&message.payload) {
        Ok(confirmation) => confirmation,
        Err(error) => return tracing::warn!("a confirmation cannot be read: {error}"),
    };
    for result in confirmation.results {
        match &result.refused {
            None => {}
            // Ordinary after a redelivery or a timeout.
            Some(refused) if refused.code == code::UNKNOWN_TASK.id => {
                tracing::debug!(token = &*result.token, "a result came late: {}", refused.message);
            }
            Some(refused) => {
                let code = &*refused.code;
                tracing::warn!(
                    token = &*result.token,
                    code,
                    "a result was refused: {}",
                    refused.message
                );
            }
        }
        flight.settle(&result.token).await;
    }
    for token in confirmation.moved {
        no_owner(flight, &token).await;
    }
}

/// No owner listens, or not for long: the log takes the result at once.
async fn no_owner(flight: &Flight, token: &str) {
    let resend = {
        let mut entries = flight.entries();
        entries.get_mut(token).and_then(|entry| match &mut entry.state {
            State::HandedIn {
                outcome,
                way: way @ Way::Direct,
                sent,
                times,
            } if entry.task.header(knarr_schemas::header::REPLY).is_some() => {
                *way = Way::Log;
                *sent = std::time::Instant::now();
                *times += 1;
                Some((Arc::clone(&entry.task), outcome.clone()))
            }
            _ => None,
        })
    };
    if let Some((task, outcome)) = resend {
        tracing::debug!(token, "no owner listens; the result goes to the log");
        flight.send(&task, outcome, Way::Log).await;
    }
}

async fn stored(flight: &Flight, token: &str, message: &Message) {
    match serde_json::from_slice::<PubAck>(&message.payload) {
        Ok(PubAck { error: None, seq }) if seq > 0 => flight.settle(token).await,
        Ok(PubAck { error, .. }) => tracing::warn!(token, ?error, "the log refused a result; it will be offered again"),
        Err(error) => tracing::warn!(token, "the log's answer cannot be read: {error}"),
    }
}

async fn beat_answered(flight: &Arc<Flight>, token: &str, message: &Message) {
    let answer = match serde_json::from_slice(&message.payload) {
        Ok(answer) => answer,
        Err(error) => return tracing::warn!("the answer to a beat cannot be read: {error}"),
    };
    let asks = match flight.entries().get(token).map(|entry| &entry.state) {
        Some(State::Claiming { by, .. }) => by.is_none(),
        _ => false,
    };
    match answer {
        _ if asks => claimed(flight, token, of_beat(answer)).await,
        BeatAnswer::Ok => {}
        BeatAnswer::Cancel | BeatAnswer::Gone => cancel(flight, token),
    }
}

/// Of a task whose handler waits for it.
fn of_beat(answer: BeatAnswer) -> ClaimAnswer {
    match answer {
        BeatAnswer::Ok => ClaimAnswer::Granted,
        BeatAnswer::Cancel => ClaimAnswer::Cancel,
        BeatAnswer::Gone => ClaimAnswer::Gone,
    }
}

async fn claim_answered(flight: &Arc<Flight>, token: &str, message: &Message) {
    match serde_json::from_slice(&message.payload) {
        Ok(answer) => claimed(flight, token, answer).await,
        // What is wrong with it now is wrong with every repeat of it: it would be asked for for ever.
        Err(_) => match refusal(message) {
            Some(refused) => {
                let code = &*refused.code;
                tracing::warn!(token, code, "a claim was refused: {}", refused.message);
                claimed(flight, token, ClaimAnswer::Gone).await;
            }
            None => tracing::warn!(token, "the answer to a claim cannot be read"),
        },
    }
}

fn refusal(message: &Message) -> Option<ErrorBody> {
    let confirmation: Confirmation<'_> = serde_json::from_slice(&message.payload).ok()?;
    confirmation.results.into_iter().find_map(|result| result.refused)
}

fn cancel(flight: &Flight, token: &str) {
    if let Some(entry) = flight.entries().get(token) {
        entry.task.cancelled.cancel();
    }
}

/// Every worker of the queue gets every push; a task that another one holds is no business of this one.
pub(crate) async fn read_cancellations(flight: Arc<Flight>, mut pushes: Subscriber) {
    while let Some(message) = pushes.next().await {
        match serde_json::from_slice::<CancelTasks>(&message.payload) {
            Ok(push) => push.tokens.iter().for_each(|token| cancel(&flight, token)),
            Err(error) => tracing::warn!("a cancellation cannot be read: {error}"),
        }
    }
}
