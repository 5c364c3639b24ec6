//! Streams of the user's in memory, and what triggers read of them.

use std::sync::Arc;

use bytes::Bytes;
use knarr_core::time::Timestamp;
use knarr_core::trigger::command::Position;
use knarr_core::trigger::source::{Gap, Loss, Place};
use knarr_core::trigger::spec::Source;
use knarr_core::trigger::state::From;

use super::log::{Entry, Located, Log};
use super::state::State;
use super::{Inner, MemoryBus};
use crate::bus::source::{Feed, Feeder, SourceItem, SourceMessage, feed};
use crate::bus::task_handle::TaskHandle;
use crate::bus::{Delivery, Headers, Outgoing};
use crate::store::Cursor;

pub(super) fn open(inner: &Arc<Inner>, source: &Source, from: &From) -> Feed {
    let (feeder, feed) = feed();
    let inner = Arc::clone(inner);
    let (source, from) = (source.clone(), from.clone());
    let task = TaskHandle::spawn(async move {
        match source.stream.clone() {
            Some(stream) => read(&inner, &stream, &source.subject, from, &feeder).await,
            None => listen(&inner, &source.subject, &feeder).await,
        }
    });
    feed.read_by(task)
}

async fn read(inner: &Arc<Inner>, stream: &str, subject: &str, mut from: From, feeder: &Feeder) {
    let mut changed = inner.changed.subscribe();
    let mut troubled = false;
    loop {
        changed.borrow_and_update();
        let step = inner.state().step_source(stream, subject, &mut from);
        let item = match step {
            Ok(Some(item)) => {
                troubled = false;
                item
            }
            Err(problem) if !troubled => {
                troubled = true;
                SourceItem::Trouble(problem)
            }
            _ => {
                tokio::select! {
                    biased;
                    changed = changed.changed() => if changed.is_err() { return },
                    () = feeder.closed() => return,
                }
                continue;
            }
        };
        if feeder.send(item).await.is_err() {
            return;
        }
    }
}

async fn listen(inner: &Arc<Inner>, subject: &str, feeder: &Feeder) {
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    inner.state().listeners.push((subject.to_owned(), sender));
    let mut sequence = 0;
    let mut last = Timestamp::default();
    loop {
        let message = tokio::select! {
            message = heard.recv() => message,
            () = feeder.closed() => return,
        };
        let Some(message) = message else { return };
        sequence += 1;
        last = (inner.clock)().max(Timestamp(last.0 + 1));
        let item = SourceItem::Message(SourceMessage {
            place: None,
            sequence,
            at: last,
            subject: message.subject,
            headers: message.headers,
            flaw: None,
            payload: message.payload,
        });
        if feeder.offer(item).is_err() {
            return;
        }
    }
}

impl State {
    /// What is handed over next. `Err` = why there is nothing to be read at all.
    fn step_source(&mut self, stream: &str, subject: &str, from: &mut From) -> Result<Option<SourceItem>, String> {
        if !self.connected {
            return Ok(None);
        }
        let Some(log) = self.streams.get(stream) else {
            return Err(format!("there is no stream `{stream}`"));
        };
        let place = |cursor: Cursor| Place {
            stream: Arc::from(cursor.stream),
            sequence: cursor.sequence,
            at: cursor.at,
        };
        let known = match from {
            From::Place(known) => known.clone(),
            From::Position(position) => {
                let sequence = match *position {
                    Position::All => 0,
                    Position::New => log.last(),
                    Position::Sequence(sequence) => sequence.saturating_sub(1).min(log.last()),
                    Position::Time(at) => log.before(at),
                };
                let begun = place(log.cursor(sequence, Timestamp::default()));
                *from = From::Place(begun.clone());
                return Ok(Some(SourceItem::Reached(begun)));
            }
        };
        let cursor = Cursor {
            sequence: known.sequence,
            at: known.at,
            stream: known.stream.to_string(),
        };
        if let Located::Gap { resumes_at } = log.locate(&cursor) {
            let resumes = place(resumes_at);
            let why = match resumes.stream == known.stream {
                false => Loss::Recreated,
                true if resumes.sequence > known.sequence => Loss::Purged,
                true => Loss::SteppedBack,
            };
            let gap = Gap {
                why,
                after: known,
                resumes: resumes.clone(),
            };
            *from = From::Place(resumes);
            return Ok(Some(SourceItem::Gap(gap)));
        }
        let Some((sequence, entry)) = log.next_matching(subject, known.sequence) else {
            return Ok(None);
        };
        let here = place(log.cursor(sequence, entry.at));
        *from = From::Place(here.clone());
        Ok(Some(SourceItem::Message(SourceMessage {
            place: Some(here),
            sequence,
            at: entry.at,
            subject: entry.subject.clone(),
            headers: entry.headers.clone(),
            flaw: None,
            payload: entry.payload.clone(),
        })))
    }
}

impl MemoryBus {
    /// Makes a stream of the user's, in place of one that has this name.
    pub fn make_stream(&self, name: &str) {
        {
            let mut state = self.inner.state();
            state.made += 1;
            let created = format!("memory-{}", state.made);
            state.streams.insert(name.to_owned(), Log::new(created));
        }
        self.inner.notify();
    }

    /// Stores a message in a stream of the user's; its sequence, 0 if there is no such stream.
    pub fn store_event(&self, stream: &str, subject: &str, headers: Headers, payload: Bytes) -> u64 {
        let sequence = {
            let mut state = self.inner.state();
            let at = (self.inner.clock)().max(state.last_time);
            state.last_time = at;
            let entry = Entry {
                at,
                partition: 0,
                subject: subject.to_owned(),
                headers,
                payload,
            };
            state.streams.get_mut(stream).map_or(0, |log| log.push(entry))
        };
        self.inner.notify();
        sequence
    }

    /// Publishes to whoever listens now.
    pub fn say(&self, subject: &str, payload: Bytes) {
        let message = Outgoing {
            subject: subject.to_owned(),
            headers: Headers::new(),
            payload,
            delivery: Delivery::Core,
        };
        let _ = self.inner.publish(message);
    }

    /// A stream of the user's drops what lies before a sequence.
    pub fn purge_stream(&self, name: &str, before: u64) {
        if let Some(log) = self.inner.state().streams.get_mut(name) {
            log.purge(before);
        }
        self.inner.notify();
    }
}
