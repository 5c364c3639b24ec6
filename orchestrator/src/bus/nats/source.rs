//! Reads a stream of the user's for a trigger, from a place on, or listens to a subject.
//!
//! **Invariant:** each message is handed over once per opening, in the stream's order; after whatever interrupts it, reading goes
//! on behind the last that was handed over, after the stream has been recognised as the same one.
//!
//! It reads by an ephemeral consumer that acknowledges nothing: its place is the trigger's, in PostgreSQL. A message whose
//! headers would end the connection is fetched by itself, as in the log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures_util::StreamExt as _;
use knarr_core::time::Timestamp;
use knarr_core::trigger::command::Position;
use knarr_core::trigger::source::{Gap, Loss, Place};
use knarr_core::trigger::spec::Source;
use knarr_core::trigger::state::From;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::Link;
use super::header_block::{self, HeaderBlock};
use super::holes::Holes;
use super::jetstream::{ApiError, MessageQuery, StreamInfo, code};
use super::log_position::{Located, first_later, locate_in};
use super::pull::{Pull, Pulled};
use super::{Shared, header_map};
use crate::bus::source::{Closed, Feed, Feeder, SourceItem, SourceMessage, feed};
use crate::bus::task_handle::TaskHandle;
use crate::store::Cursor;
use crate::telemetry::metric;

/// Between attempts to read again.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// What will not be otherwise at once.
const TROUBLE_DELAY: Duration = Duration::from_secs(1);

pub(super) fn open(shared: &Arc<Shared>, source: &Source, from: &From) -> Feed {
    let (feeder, feed) = feed();
    let shared = Arc::clone(shared);
    let task = match &source.stream {
        Some(stream) => {
            let mut reader = StreamReader {
                link: shared.link.clone(),
                stream: stream.to_string(),
                filter: source.subject.to_string(),
                from: from.clone(),
                feeder,
                handed_over_at: Instant::now(),
                holes: Holes::new(Instant::now()),
                told: 0,
                interrupted: false,
                troubled: false,
                shared,
            };
            TaskHandle::spawn(async move { reader.run().await })
        }
        None => {
            let subject = source.subject.to_string();
            TaskHandle::spawn(async move { listen(&shared, subject, &feeder).await })
        }
    };
    feed.read_by(task)
}

/// Why reading has ended for now.
enum Ended {
    /// It may go on at once.
    Interrupted(String),
    /// Somebody has to be told.
    Trouble(String),
}

impl std::convert::From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unavailable(why) => Self::Interrupted(why),
            error => Self::Trouble(error.to_string()),
        }
    }
}

struct StreamReader {
    shared: Arc<Shared>,
    link: watch::Receiver<Link>,
    stream: String,
    filter: String,
    from: From,
    feeder: Feeder,
    handed_over_at: Instant,
    holes: Holes,
    /// The last sequence that was handed over as a place that is reached.
    told: u64,
    /// Perhaps by the message that is next.
    interrupted: bool,
    /// Of which has been told.
    troubled: bool,
}

impl StreamReader {
    async fn run(&mut self) {
        loop {
            // A closed watch means that the connection is gone for good.
            let Ok(link) = self.link.wait_for(|link| link.up).await.map(|link| *link) else {
                return;
            };
            let pause = match self.read(link.epoch).await {
                Ok(Ended::Interrupted(why)) => {
                    tracing::debug!(stream = self.stream, why, "reading a trigger's stream again");
                    RETRY_DELAY
                }
                Ok(Ended::Trouble(why)) => {
                    self.troubled = true;
                    if self.feeder.send(SourceItem::Trouble(why)).await.is_err() {
                        return;
                    }
                    TROUBLE_DELAY
                }
                Err(Closed) => return,
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn read(&mut self, epoch: u64) -> Result<Ended, Closed> {
        let info = match self.shared.js.stream(&self.stream).await {
            Ok(info) => info,
            Err(error) if error.is(code::STREAM_NOT_FOUND) => {
                return Ok(Ended::Trouble(format!("there is no stream `{}`", self.stream)));
            }
            // Whoever may not ask hears nothing, and would never be told.
            Err(error) => return Ok(Ended::Trouble(error.to_string())),
        };
        let retention = info.config["retention"].as_str().unwrap_or("limits");
        if retention != "limits" {
            return Ok(Ended::Trouble(format!(
                "the stream `{}` keeps its messages by `{retention}`; a trigger reads one that keeps them by limits",
                self.stream
            )));
        }
        let mut place = match self.resolve(&info).await? {
            Ok(place) => place,
            Err(error) => return Ok(error.into()),
        };
        if self.interrupted
            && let Err(error) = self.read_singly(&mut place).await?
        {
            return Ok(error.into());
        }
        self.interrupted = true;
        let heartbeat = self.shared.config.idle_after / 4;
        let filters = match self.filter.as_str() {
            ">" => Vec::new(),
            filter => vec![filter.to_owned()],
        };
        let start = place.sequence + 1;
        let mut pull = match Pull::open(&self.shared.js, &self.stream, &filters, start, heartbeat).await {
            Ok(pull) => pull,
            Err(error) => return Ok(error.into()),
        };
        if std::mem::take(&mut self.troubled) {
            // It is over, though nothing may come for long.
            self.feeder.send(SourceItem::Reached(place.clone())).await?;
        }
        let mut link = self.link.clone();
        let ended = loop {
            let pulled = tokio::select! {
                biased;
                pulled = pull.next() => pulled,
                _ = link.wait_for(|link| link.epoch != epoch) => {
                    break Ended::Interrupted("the connection was lost".to_owned());
                }
                () = self.feeder.closed() => return Err(Closed),
            };
            match pulled {
                Ok(Pulled::Message { message, position }) => {
                    let headers = HeaderBlock {
                        headers: header_map::from_client(message.headers.as_ref()),
                        flaw: None,
                    };
                    self.look_for_a_gap(&mut place, position.stream_sequence).await?;
                    place.sequence = position.stream_sequence;
                    place.at = Timestamp(position.nanos / 1_000);
                    self.deliver(&place, message.subject.into_string(), headers, message.payload)
                        .await?;
                }
                Ok(Pulled::Idle { stream_sequence }) => {
                    let next = place.sequence + 1;
                    self.look_for_a_gap(&mut place, next).await?;
                    self.report_idle(&mut place, stream_sequence).await?;
                }
                Err(broken) => break Ended::Interrupted(broken.0),
            }
        };
        pull.close().await;
        Ok(ended)
    }

    /// Where reading goes on in the stream as it is now; what was lost is told.
    async fn resolve(&mut self, info: &StreamInfo) -> Result<Result<Place, ApiError>, Closed> {
        let js = &self.shared.js;
        let position = match &self.from {
            From::Place(known) => {
                let cursor = Cursor {
                    sequence: known.sequence,
                    at: known.at,
                    stream: known.stream.to_string(),
                };
                return match locate_in(js, &self.stream, info, &cursor).await {
                    Ok(Located::Continues { .. }) => Ok(Ok(known.clone())),
                    Ok(Located::Gap { resumes_at }) => {
                        let known = known.clone();
                        let resumes = Place {
                            stream: Arc::from(resumes_at.stream),
                            sequence: resumes_at.sequence,
                            at: resumes_at.at,
                        };
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
                        self.feeder.send(SourceItem::Gap(gap)).await?;
                        self.from = From::Place(resumes.clone());
                        Ok(Ok(resumes))
                    }
                    Err(error) => Ok(Err(error)),
                };
            }
            From::Position(position) => *position,
        };
        let last = info.state.last_seq;
        let found = match position {
            // What was dropped before is nothing that was lost.
            Position::All => Ok(info.state.first_seq.saturating_sub(1)),
            Position::New => Ok(last),
            Position::Sequence(sequence) => Ok(sequence.saturating_sub(1).min(last)),
            Position::Time(at) => {
                let later = first_later(js, &self.stream, Timestamp(at.0.saturating_sub(1))).await;
                // `last` was read first, so whatever comes later has a higher sequence.
                later.map(|later| later.map_or(last, |sequence| sequence - 1))
            }
        };
        let sequence = match found {
            Ok(sequence) => sequence,
            Err(error) => return Ok(Err(error)),
        };
        let at = match sequence {
            0 => Ok(None),
            sequence => js.message_at(&self.stream, sequence).await,
        };
        let at = match at {
            Ok(message) => message.map_or(Timestamp::default(), |message| message.at()),
            Err(error) => return Ok(Err(error)),
        };
        let place = Place {
            stream: Arc::from(&*info.created),
            sequence,
            at,
        };
        self.from = From::Place(place.clone());
        self.feeder.send(SourceItem::Reached(place.clone())).await?;
        Ok(Ok(place))
    }

    /// Whether what lies between messages has been dropped before it was read. The next one is to come, or has come.
    async fn look_for_a_gap(&mut self, place: &mut Place, next: u64) -> Result<(), Closed> {
        let Some(hole) = self.holes.due(place, next, Instant::now()) else {
            return Ok(());
        };
        let info = self.shared.js.stream(&self.stream).await;
        // Of another stream in its place is told when it is read again.
        let first = match &info {
            Ok(info) if *info.created == *place.stream => Some(info.state.first_seq.min(next)),
            _ => None,
        };
        if let Some(gap) = self.holes.looked(hole, place, first, Instant::now()) {
            *place = gap.resumes.clone();
            self.feeder.send(SourceItem::Gap(gap)).await?;
        }
        Ok(())
    }

    async fn read_singly(&mut self, place: &mut Place) -> Result<Result<(), ApiError>, Closed> {
        let mut until = 0;
        loop {
            let query = MessageQuery {
                seq: Some(place.sequence + 1),
                next_by_subj: Some(&self.filter),
                ..MessageQuery::default()
            };
            let message = match self.shared.js.message(&self.stream, &query).await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            let payload = match message.payload() {
                Ok(payload) => payload,
                Err(error) => return Ok(Err(error)),
            };
            let headers = header_block::read(&message.headers);
            if headers.flaw.is_some() && until == 0 {
                until = match self.shared.js.stream(&self.stream).await {
                    Ok(info) => info.state.last_seq,
                    Err(error) => return Ok(Err(error)),
                };
            }
            place.sequence = message.sequence;
            place.at = message.at();
            self.deliver(place, message.subject, headers, payload).await?;
            if place.sequence >= until {
                return Ok(Ok(()));
            }
        }
    }

    async fn deliver(
        &mut self,
        place: &Place,
        subject: String,
        headers: HeaderBlock,
        payload: Bytes,
    ) -> Result<(), Closed> {
        self.handed_over_at = Instant::now();
        self.from = From::Place(place.clone());
        let message = SourceMessage {
            place: Some(place.clone()),
            sequence: place.sequence,
            at: place.at,
            subject,
            headers: headers.headers,
            flaw: headers.flaw,
            payload,
        };
        self.feeder.send(SourceItem::Message(message)).await
    }

    /// Moves the place over what is not wanted, and has it recorded, once nothing has come for a while.
    async fn report_idle(&mut self, place: &mut Place, read_to: u64) -> Result<(), Closed> {
        let nothing_new = read_to.max(place.sequence) <= self.told;
        if nothing_new || self.handed_over_at.elapsed() < self.shared.config.idle_after {
            return Ok(());
        }
        if read_to > place.sequence {
            // A place needs a message to be recognised by; without one there is another time.
            let Ok(Some(message)) = self.shared.js.message_at(&self.stream, read_to).await else {
                return Ok(());
            };
            place.sequence = read_to;
            place.at = message.at();
        }
        self.told = place.sequence;
        self.handed_over_at = Instant::now();
        self.from = From::Place(place.clone());
        self.feeder.send(SourceItem::Reached(place.clone())).await
    }
}

/// What is published to a subject while this lasts. What there is no room for is dropped and counted.
async fn listen(shared: &Arc<Shared>, subject: String, feeder: &Feeder) {
    let mut heard = 0;
    let mut last = Timestamp::default();
    loop {
        let mut subscription = match shared.js.client().subscribe(subject.clone()).await {
            Ok(subscription) => subscription,
            Err(error) => {
                if feeder.send(SourceItem::Trouble(error.to_string())).await.is_err() {
                    return;
                }
                tokio::time::sleep(TROUBLE_DELAY).await;
                continue;
            }
        };
        loop {
            let message = tokio::select! {
                message = subscription.next() => message,
                () = feeder.closed() => return,
            };
            let Some(message) = message else { break };
            heard += 1;
            // Each has a time of its own, by which it is told from the others.
            last = Timestamp::from_utc(Utc::now()).max(Timestamp(last.0 + 1));
            let item = SourceItem::Message(SourceMessage {
                place: None,
                sequence: heard,
                at: last,
                subject: message.subject.into_string(),
                headers: header_map::from_client(message.headers.as_ref()),
                flaw: None,
                payload: message.payload,
            });
            match feeder.offer(item) {
                Ok(true) => {}
                Ok(false) => metrics::counter!(metric::TRIGGER_EVENTS, "outcome" => "dropped").increment(1),
                Err(Closed) => return,
            }
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}
