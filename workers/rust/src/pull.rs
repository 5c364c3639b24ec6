//! Taking tasks from the queue's consumer: a credit-counting loop over raw pull requests.
//!
//! The library's own `messages()` stalls under load: it counts a pull as outstanding only after a background task has
//! reported it, and the drift adds up until it waits for what was never asked for. Here credit is added before a request
//! is sent, and only ever for free slots, so that no task's lease runs out in a buffer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::{Message, SubscribeError, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::flight::{Flight, NAK};
use crate::task::{Handlers, accept};

/// How long the server keeps a pull waiting.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that it still knows of a pull.
const HEARTBEAT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);
/// Between looks for a queue that is not there yet; doubled up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often a queue that is still not there is worth a line in the log.
const COMPLAIN: Duration = Duration::from_secs(60);
/// Messages taken before anything else gets its turn.
const BURST: usize = 64;
/// The queue's lease is read again so often; and at most so often where a task has come again too soon.
const READ_AGAIN: Duration = Duration::from_secs(60);
const READ_IN_DOUBT: Duration = Duration::from_secs(1);
/// How long the messages under way at shutdown may take to arrive.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// The consumer of one queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) stream: String,
    pub(crate) consumer: String,
}

impl Queue {
    fn next_subject(&self) -> String {
        format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer)
    }

    fn info_subject(&self) -> String {
        format!("$JS.API.CONSUMER.INFO.{}.{}", self.stream, self.consumer)
    }
}

struct Request {
    left: usize,
    /// Past this the server has forgotten the request, with or without a word.
    gone: Instant,
}

/// Why a loop over one inbox ended.
enum End {
    Stopped,
    /// What is still asked for is not known any more: start over with a new inbox.
    Lost,
}

struct Puller<'a> {
    flight: &'a Arc<Flight>,
    handlers: &'a Handlers,
    queue: &'a Queue,
    requests: VecDeque<Request>,
    /// Of the connection; a change means that the server has forgotten every request.
    connects: u64,
    heard: Instant,
    not_before: Instant,
    backoff: Duration,
    complained: Option<Instant>,
    ack_wait_read: Option<Instant>,
}

/// Pulls and starts tasks until `stop`; then gives back what was pulled and not begun.
///
/// # Errors
/// When the client is closed.
pub(crate) async fn pull(
    flight: &Arc<Flight>,
    handlers: &Handlers,
    queue: &Queue,
    stop: &CancellationToken,
) -> Result<(), SubscribeError> {
    let now = Instant::now();
    let mut puller = Puller {
        flight,
        handlers,
        queue,
        requests: VecDeque::new(),
        connects: 0,
        heard: now,
        not_before: now,
        backoff: BACKOFF.0,
        complained: None,
        ack_wait_read: None,
    };
    loop {
        let inbox = flight.client.new_inbox();
        let mut messages = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            subscribed = flight.client.subscribe(inbox.clone()) => subscribed?,
        };
        puller.connects = connects(flight);
        puller.ack_wait_read = None;
        let end = puller.pull_into(&inbox, &mut messages, stop).await;
        puller.forget_requests();
        match end {
            End::Stopped => {
                give_back(flight, &mut messages).await;
                return Ok(());
            }
            // What has already arrived is as good as ever.
            End::Lost => {
                while let Some(Some(message)) = messages.next().now_or_never() {
                    if message.status.is_none() {
                        accept(flight, handlers, message).await;
                    }
                }
            }
        }
    }
}

fn connects(flight: &Flight) -> u64 {
    flight.client.statistics().connects.load(Ordering::Relaxed)
}

impl Puller<'_> {
    async fn pull_into(&mut self, inbox: &str, messages: &mut Subscriber, stop: &CancellationToken) -> End {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return End::Stopped,
                () = self.ask(inbox) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return End::Stopped,
                message = messages.next() => {
                    let Some(message) = message else { return End::Lost };
                    if let Some(end) = self.take(message).await {
                        return end;
                    }
                    for _ in 0..BURST {
                        let Some(Some(message)) = messages.next().now_or_never() else { break };
                        if let Some(end) = self.take(message).await {
                            return end;
                        }
                    }
                }
                () = self.flight.room.notified() => {}
                _ = ticks.tick() => {
                    if connects(self.flight) != self.connects {
                        return End::Lost;
                    }
                    let now = Instant::now();
                    let is_silent = !self.requests.is_empty() && self.flight.is_connected();
                    if is_silent && now - self.heard > 2 * HEARTBEAT {
                        tracing::warn!("no word from the queue for {:?}; asking anew", now - self.heard);
                        return End::Lost;
                    }
                    while self.requests.front().is_some_and(|request| request.gone <= now) {
                        self.drop_front();
                    }
                    // There were tasks, and some may be at work.
                    if self.ack_wait_read.is_some() && self.flight.is_connected() {
                        self.read_ack_wait();
                    }
                }
            }
        }
    }

    /// Asks for as many tasks as there are free slots, if that is worth a request. Not while the connection is away: what
    /// is asked then piles up in the client, and is not known to the server that comes back.
    async fn ask(&mut self, inbox: &str) {
        let now = Instant::now();
        if now < self.not_before || !self.flight.is_connected() {
            return;
        }
        let free = self.flight.free();
        if free == 0 || (free < self.flight.low_water && !self.requests.is_empty()) {
            return;
        }
        self.requests.push_back(Request {
            left: free,
            gone: now + EXPIRES + Duration::from_secs(2),
        });
        if self.requests.len() == 1 {
            self.heard = now;
        }
        self.flight.pulled.fetch_add(free, Ordering::AcqRel);
        let request = format!(
            r#"{{"batch":{free},"expires":{},"idle_heartbeat":{}}}"#,
            EXPIRES.as_nanos(),
            HEARTBEAT.as_nanos()
        );
        let asking =
            self.flight
                .client
                .publish_with_reply(self.queue.next_subject(), inbox.to_owned(), Bytes::from(request));
        match self.flight.offer(asking).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!("cannot ask for tasks: {error}");
                self.forget_requests();
                self.back_off();
            }
            // Never sent, so nothing will come for it.
            None => {
                if let Some(request) = self.requests.pop_back() {
                    self.flight.pulled.fetch_sub(request.left, Ordering::AcqRel);
                }
                self.back_off();
            }
        }
    }

    async fn take(&mut self, message: Message) -> Option<End> {
        self.heard = Instant::now();
        let Some(status) = message.status else {
            self.found();
            self.use_credit(1);
            accept(self.flight, self.handlers, message).await;
            self.read_ack_wait();
            return None;
        };
        let pending = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Pending-Messages"))
            .and_then(|count| count.as_str().parse::<usize>().ok());
        match (status.as_u16(), pending) {
            (100, _) => self.found(),
            (503, _) => {
                self.forget_requests();
                self.missing();
            }
            // A request has ended: it expired, or the server lets go of it.
            (404 | 408 | 409, Some(pending)) => {
                self.found();
                self.use_credit(pending);
            }
            (status, _) => {
                let description = message.description.as_deref().unwrap_or_default();
                tracing::warn!(status, description, "the server refused a request for tasks");
                self.back_off();
                return Some(End::Lost);
            }
        }
        None
    }

    fn use_credit(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.requests.front_mut() else { return };
            let used = front.left.min(count);
            front.left -= used;
            count -= used;
            self.flight.pulled.fetch_sub(used, Ordering::AcqRel);
            if front.left == 0 {
                self.requests.pop_front();
            }
        }
    }

    fn drop_front(&mut self) {
        if let Some(request) = self.requests.pop_front() {
            self.flight.pulled.fetch_sub(request.left, Ordering::AcqRel);
        }
    }

    fn forget_requests(&mut self) {
        while !self.requests.is_empty() {
            self.drop_front();
        }
    }

    fn back_off(&mut self) {
        self.not_before = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
    }

    /// Nobody answers for the consumer: no definition has named the queue yet, or JetStream is still starting.
    fn missing(&mut self) {
        let now = Instant::now();
        if self.complained.is_none_or(|at| now - at >= COMPLAIN) {
            self.complained = Some(now);
            tracing::warn!(
                consumer = self.queue.consumer,
                stream = self.queue.stream,
                "the task queue is not there yet; waiting for a definition that names it"
            );
        }
        self.back_off();
    }

    fn found(&mut self) {
        self.backoff = BACKOFF.0;
        if self.complained.take().is_some() {
            tracing::info!(consumer = self.queue.consumer, "the task queue is there");
        }
    }

    /// When the first task of an inbox shows that the consumer is there, and now and then: an operator may change it.
    fn read_ack_wait(&mut self) {
        let age = self.ack_wait_read.map(|at| at.elapsed());
        let in_doubt = || self.flight.lease_in_doubt.load(Ordering::Relaxed);
        if age.is_some_and(|age| age < READ_AGAIN && (age < READ_IN_DOUBT || !in_doubt())) {
            return;
        }
        self.ack_wait_read = Some(Instant::now());
        self.flight.lease_in_doubt.store(false, Ordering::Relaxed);
        let subject = self.queue.info_subject();
        let flight = Arc::clone(self.flight);
        tokio::spawn(async move {
            match ack_wait(&flight, subject).await {
                Some(ack_wait) => {
                    let ms = u64::try_from(ack_wait.as_millis()).unwrap_or(u64::MAX);
                    flight.ack_wait_ms.store(ms.max(1), Ordering::Relaxed);
                }
                None => tracing::debug!("the queue's settings cannot be read; 30 s are assumed for its lease"),
            }
        });
    }
}

async fn ack_wait(flight: &Flight, subject: String) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Info {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        /// Nanoseconds.
        ack_wait: u64,
    }
    let answer = flight.client.request(subject, Bytes::new()).await.ok()?;
    let info: Info = serde_json::from_slice(&answer.payload).ok()?;
    Some(Duration::from_nanos(info.config.ack_wait))
}

/// Ends the subscription and gives back what still arrives, so that another worker has it at once.
async fn give_back(flight: &Flight, messages: &mut Subscriber) {
    if !matches!(flight.offer(messages.drain()).await, Some(Ok(()))) {
        return;
    }
    let stragglers = async {
        while let Some(message) = messages.next().await {
            if let (None, Some(ack)) = (message.status, message.reply) {
                flight.tell(ack, NAK).await;
            }
        }
    };
    if tokio::time::timeout(STRAGGLERS, stragglers).await.is_err() {
        tracing::debug!("the server did not end the subscription in time");
    }
}
