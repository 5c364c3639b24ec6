//! Taking tasks out of their queue, and saying whether a worker may have had them.
//!
//! | what is found of a task | then |
//! |---|---|
//! | nothing | it was delivered and is done with, or taken out before |
//! | a message that the consumer may have given out | it was delivered; what else there is of it stays |
//! | messages of which it has given out none | all are deleted. That it has not given one out meanwhile is asked again afterwards |
//!
//! The consumer gives out messages in their order, so that what it has delivered is all up to a sequence. One that is younger
//! than a message says nothing of what an earlier one delivered. A message that is not there any more when it is to be
//! deleted, and that the consumer had not come to, was deleted by somebody else who takes the task back, or by a request of ours
//! of which no answer came.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use knarr_core::ids::{Namespace, QueueName};
use serde_json::{Value, json};

use super::jetstream::{ApiError, ConsumerInfo, JetStream, code};
use super::streams;
use super::sweep::{Found, Name, Sweep};
use crate::bus::BusError;

/// A task that was offered more often than that was held for hours.
const MOST_COPIES: usize = 64;
/// Tasks that are deleted before it is asked what was delivered meanwhile: few, for who has got that far counts as delivered.
const TOGETHER: usize = 64;
/// Of a question that is not answered once something has been deleted: the answer would be lost with it.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// One answer each; `None` where the queue has not given one.
pub(super) async fn withdraw(
    js: &JetStream,
    namespace: &Namespace,
    queue: &QueueName,
    tasks: &[Name],
) -> Vec<Option<bool>> {
    let mut answers = HashMap::with_capacity(tasks.len());
    if let Err(error) = take_out(js, namespace, queue, tasks, &mut answers).await {
        tracing::debug!(%error, %namespace, %queue, "tasks are taken out of their queue later");
    }
    tasks.iter().map(|name| answers.get(name).copied()).collect()
}

async fn take_out(
    js: &JetStream,
    namespace: &Namespace,
    queue: &QueueName,
    tasks: &[Name],
    answers: &mut HashMap<Name, bool>,
) -> Result<(), BusError> {
    let (stream, _) = streams::names(namespace)?;
    let (consumer, filter) = streams::queue_names(namespace, queue)?;
    let last = match js.stream(&stream).await {
        Err(error) if error.is(code::STREAM_NOT_FOUND) => {
            answers.extend(tasks.iter().map(|name| (*name, false)));
            return Ok(());
        }
        info => info?.state.last_seq,
    };
    let mut there: Vec<(Name, Vec<Found>)> = Vec::new();
    for (name, copies) in Sweep::new(js, &stream, &filter, last, tasks).find().await? {
        if copies.is_empty() || copies.len() > MOST_COPIES {
            answers.insert(name, false);
        } else {
            there.push((name, copies));
        }
    }
    // Those that are delivered next come first.
    there.sort_unstable_by_key(|(_, copies)| copies.first().map(|copy| copy.sequence));
    let queue = Queue {
        js,
        stream: &stream,
        consumer: &consumer,
    };
    let before = queue.consumer().await?;
    Ok(queue.delete(before, &there, answers).await?)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Queue<'a> {
    pub(super) js: &'a JetStream,
    pub(super) stream: &'a str,
    pub(super) consumer: &'a str,
}

impl Queue<'_> {
    /// `None` if it is not there.
    pub(super) async fn consumer(&self) -> Result<Option<ConsumerInfo>, ApiError> {
        match self.js.consumer(self.stream, self.consumer).await {
            Err(error) if error.is(code::CONSUMER_NOT_FOUND) || error.is(code::STREAM_NOT_FOUND) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Deletes what was found of tasks, unless it has been given out; `before`: as the consumer was last.
    pub(super) async fn delete(
        &self,
        mut before: Option<ConsumerInfo>,
        there: &[(Name, Vec<Found>)],
        answers: &mut HashMap<Name, bool>,
    ) -> Result<(), ApiError> {
        for some in there.chunks(TOGETHER) {
            let (untouched, given_out): (Vec<_>, Vec<_>) =
                some.iter().partition(|(_, copies)| has_none(before.as_ref(), copies));
            answers.extend(given_out.iter().map(|(name, _)| (*name, false)));
            let deletions = untouched.iter().map(async |(_, copies)| {
                let deletions = copies.iter().map(|copy| self.delete_one(copy.sequence));
                join_all(deletions).await.into_iter().collect::<Result<(), ApiError>>()
            });
            let deleted = join_all(deletions).await;
            before = patiently(|| self.consumer()).await?;
            for ((name, copies), deleted) in untouched.into_iter().zip(deleted) {
                match deleted {
                    Ok(()) => drop(answers.insert(*name, has_none(before.as_ref(), copies))),
                    Err(error) => {
                        tracing::debug!(%error, run = %name.0, task = name.1.0, "a task is taken out later");
                    }
                }
            }
        }
        Ok(())
    }

    /// Its bytes are not overwritten, which would cost a hundred times as much.
    async fn delete_one(&self, sequence: u64) -> Result<(), ApiError> {
        let operation = format!("STREAM.MSG.DELETE.{}", self.stream);
        let request = json!({ "seq": sequence, "no_erase": true });
        match patiently(|| self.js.call::<Value>(&operation, &request)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is(code::NO_MESSAGE_FOUND) => Ok(()),
            // It is not there, or its store is at fault.
            Err(error) if error.is(code::DELETE_FAILED) => match self.js.message_at(self.stream, sequence).await? {
                None => Ok(()),
                Some(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

/// Whether the consumer has given out none of these.
fn has_none(consumer: Option<&ConsumerInfo>, copies: &[Found]) -> bool {
    consumer.is_some_and(|info| {
        copies.iter().all(|copy| {
            let older = info.created.is_some_and(|created| created <= copy.at);
            older && info.delivered.stream_seq < copy.sequence
        })
    })
}

async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut tries = 1;
    loop {
        match ask().await {
            Err(ApiError::Unavailable(_) | ApiError::NoResponders) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            answer => return answer,
        }
    }
}
