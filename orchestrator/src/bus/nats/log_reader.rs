//! Reads one partition of the log into the engine's channel, from a cursor on, for as long as the partition is open.
//!
//! **Invariant:** each message is handed over once per opening, in the log's order; after whatever interrupts it, reading
//! goes on behind the last message that was handed over, after the stream has been recognised as the same one.
//!
//! A message whose headers end the connection would end it again at every attempt. So after each interruption the next
//! message is fetched by itself, its headers as data; and behind one that cannot be read all that the log holds by then.
//!
//! It acknowledges nothing: its place is the engine's cursor. Back-pressure is the engine's room: while there is none
//! for this partition no more is asked for than [`Pull`] has asked for already.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use knarr_core::time::Timestamp;
use knarr_schemas::subject::LOG_STREAM;
use tokio::sync::watch;
use tokio::time::Instant;

use super::bodies::Whose;
use super::connection::Link;
use super::header_block::{self, HeaderBlock};
use super::jetstream::{ApiError, MessageQuery, StoredMessage, code};
use super::log_position::{Located, locate};
use super::pull::{Pull, Pulled};
use super::{Shared, bodies, header_map};
use crate::bus::inlet::{Closed, Inlet};
use crate::bus::task_handle::TaskHandle;
use crate::bus::{Incoming, LogGap, LogMessage};
use crate::store::Cursor;

/// Between attempts to read again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

pub(super) fn open(
    shared: &Arc<Shared>,
    partition: i16,
    filters: Vec<String>,
    cursor: Cursor,
    reader: u64,
    into: Inlet,
) -> TaskHandle {
    let mut log_reader = LogReader {
        shared: Arc::clone(shared),
        link: shared.link.clone(),
        partition,
        filters,
        cursor,
        reader,
        into,
        handed_over_at: Instant::now(),
        interrupted: false,
    };
    TaskHandle::spawn(async move { log_reader.run().await })
}

struct LogReader {
    shared: Arc<Shared>,
    link: watch::Receiver<Link>,
    partition: i16,
    filters: Vec<String>,
    /// Of the last message handed over.
    cursor: Cursor,
    reader: u64,
    into: Inlet,
    handed_over_at: Instant,
    /// Perhaps by the message that is next.
    interrupted: bool,
}

impl LogReader {
    async fn run(&mut self) {
        loop {
            // A closed watch means that the connection is gone for good.
            let Ok(link) = self.link.wait_for(|link| link.up).await.map(|link| *link) else {
                return;
            };
            match self.read(link.epoch).await {
                Ok(why) => tracing::debug!(partition = self.partition, why, "reading the log again"),
                Err(Closed) => return,
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Reads until something breaks, and says what.
    async fn read(&mut self, epoch: u64) -> Result<String, Closed> {
        let js = &self.shared.js;
        match locate(js, &self.shared.streams, &self.cursor).await {
            Ok(Located::Continues { stream }) => self.cursor.stream = stream,
            Ok(Located::Gap { resumes_at }) => {
                let gap = LogGap {
                    partition: self.partition,
                    lost_after: self.cursor.clone(),
                    resumes_at: resumes_at.clone(),
                    reader: self.reader,
                };
                self.hand_over(Incoming::Gap(gap)).await?;
                self.cursor = resumes_at;
            }
            Err(error) if error.is(code::STREAM_NOT_FOUND) => {
                return Ok(match self.shared.streams.assert_log().await {
                    Ok(()) => "the log was missing and has been created".to_owned(),
                    Err(error) => error.to_string(),
                });
            }
            Err(error) => return Ok(error.to_string()),
        }
        if self.interrupted
            && let Err(error) = self.read_singly().await?
        {
            return Ok(error.to_string());
        }
        self.interrupted = true;
        let heartbeat = self.shared.config.idle_after / 4;
        let start = self.cursor.sequence + 1;
        let mut pull = match Pull::open(&self.shared.js, LOG_STREAM, &self.filters, start, heartbeat).await {
            Ok(pull) => pull,
            Err(error) => return Ok(error.to_string()),
        };
        if let Some(at) = pull.opened_at {
            self.hand_over(Incoming::Clock(at)).await?;
        }
        let mut link = self.link.clone();
        let why = loop {
            let pulled = tokio::select! {
                biased;
                pulled = pull.next() => pulled,
                _ = link.wait_for(|link| link.epoch != epoch) => break "the connection was lost".to_owned(),
                () = self.into.closed() => return Err(Closed),
            };
            match pulled {
                Ok(Pulled::Message { message, position }) => {
                    let headers = HeaderBlock {
                        headers: header_map::from_client(message.headers.as_ref()),
                        flaw: None,
                    };
                    let at = Timestamp(position.nanos / 1_000);
                    let subject = message.subject.into_string();
                    self.deliver(position.stream_sequence, at, subject, headers, message.payload)
                        .await?;
                }
                Ok(Pulled::Idle { stream_sequence }) => self.report_idle(stream_sequence).await?,
                Err(broken) => break broken.0,
            }
        };
        pull.close().await;
        Ok(why)
    }

    async fn read_singly(&mut self) -> Result<Result<(), ApiError>, Closed> {
        let mut until = 0;
        loop {
            let message = match self.fetch_next().await {
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
                until = match self.shared.js.stream(LOG_STREAM).await {
                    Ok(info) => info.state.last_seq,
                    Err(error) => return Ok(Err(error)),
                };
            }
            let at = message.at();
            self.deliver(message.sequence, at, message.subject, headers, payload)
                .await?;
            if self.cursor.sequence >= until {
                return Ok(Ok(()));
            }
        }
    }

    /// The partition's next message, if the log holds one.
    async fn fetch_next(&self) -> Result<Option<StoredMessage>, ApiError> {
        let mut next: Option<StoredMessage> = None;
        for filter in &self.filters {
            let query = MessageQuery {
                seq: Some(self.cursor.sequence + 1),
                next_by_subj: Some(filter),
                ..MessageQuery::default()
            };
            let found = self.shared.js.message(LOG_STREAM, &query).await?;
            next = next.into_iter().chain(found).min_by_key(|message| message.sequence);
        }
        Ok(next)
    }

    async fn deliver(
        &mut self,
        sequence: u64,
        at: Timestamp,
        subject: String,
        mut headers: HeaderBlock,
        mut payload: Bytes,
    ) -> Result<(), Closed> {
        let mut room = None;
        if bodies::is_elsewhere(&headers.headers)
            && let Some(whose) = Whose::of_log(&subject)
        {
            let shared = &self.shared;
            let fetching = async {
                // The semaphore is never closed.
                let room = shared.fetching_of_logs.acquire_many(whose.mebibytes()).await.ok();
                let fetched = bodies::fetch(shared, &whose, &mut headers.headers, payload).await;
                (room, fetched)
            };
            (room, payload) = tokio::select! {
                fetched = fetching => fetched,
                () = self.into.closed() => return Err(Closed),
            };
        }
        self.cursor.sequence = sequence;
        self.cursor.at = at;
        self.handed_over_at = Instant::now();
        let message = LogMessage {
            partition: self.partition,
            cursor: self.cursor.clone(),
            subject,
            headers: headers.headers,
            flaw: headers.flaw,
            payload,
            reader: self.reader,
        };
        let handed_over = self.hand_over(Incoming::Log(message)).await;
        // Its inlet counts it from here on.
        drop(room);
        handed_over
    }

    async fn hand_over(&self, incoming: Incoming) -> Result<(), Closed> {
        self.into.send(incoming).await
    }

    /// Moves the cursor of a silent partition over what other partitions have stored meanwhile.
    async fn report_idle(&mut self, read_to: u64) -> Result<(), Closed> {
        if read_to <= self.cursor.sequence || self.handed_over_at.elapsed() < self.shared.config.idle_after {
            return Ok(());
        }
        // A cursor needs a message to be recognised by; without one there is another time.
        let Ok(Some(message)) = self.shared.js.message_at(LOG_STREAM, read_to).await else {
            return Ok(());
        };
        self.cursor.sequence = read_to;
        self.cursor.at = message.at();
        self.handed_over_at = Instant::now();
        let idle = Incoming::Idle {
            partition: self.partition,
            cursor: self.cursor.clone(),
            reader: self.reader,
        };
        self.hand_over(idle).await
    }
}
