//! An ephemeral pull consumer and its credits: the loop that `async_nats` has too, without its stalls.
//!
//! **Invariants:** at most [`CREDITS`] messages are asked for and not yet received; consumer sequences are handed over
//! without a gap, and where one is missing the pull ends with [`Broken`].
//! It does not resume: whoever owns it opens a new one from what was handed over last.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use knarr_core::time::Timestamp;
use serde_json::json;

use super::jetstream::{ApiError, JetStream};

/// Messages asked for at most. Enough to cover a round trip at full speed, few enough that a reader that stands still
/// holds little.
const CREDITS: u32 = 256;
/// A single pull's bytes beside one message of the largest size, without which that could not pass: for its subject and
/// its place. So what two pulls under way have brought, and nobody has taken, is two such messages or 256 small ones.
const BESIDE_LARGEST: usize = 8 << 10;
const EXPIRES: Duration = Duration::from_secs(30);
/// The server drops a consumer nobody has pulled from for so long.
const INACTIVE: Duration = Duration::from_secs(60);

/// Why a pull cannot go on.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

#[derive(Debug)]
pub(super) enum Pulled {
    Message {
        message: Message,
        position: Position,
    },
    /// Nothing to deliver: the consumer has looked at everything up to this stream sequence.
    Idle {
        stream_sequence: u64,
    },
}

/// Where a delivered message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) stream_sequence: u64,
    pub(super) consumer_sequence: u64,
    /// When it was stored.
    pub(super) nanos: i64,
}

impl Position {
    /// From an acknowledgement subject, in the form of nats-server before and after `js_ack_fc_v2`:
    /// `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<tm>.<pending>`,
    /// `$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<tm>.<pending>[.<token>]`.
    pub(super) fn parse(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let skip = match rest.split('.').count() {
            7 => 3,
            9 | 10 => 5,
            _ => return None,
        };
        let mut parts = rest.split('.').skip(skip);
        Some(Self {
            stream_sequence: parts.next()?.parse().ok()?,
            consumer_sequence: parts.next()?.parse().ok()?,
            nanos: parts.next()?.parse().ok()?,
        })
    }
}

#[derive(Debug)]
pub(super) struct Pull {
    js: JetStream,
    stream: String,
    name: String,
    next_subject: Subject,
    inbox: Subject,
    subscription: Subscriber,
    heartbeat: Duration,
    credits: u32,
    consumer_sequence: u64,
    /// By the server's clock.
    pub(super) opened_at: Option<Timestamp>,
}

impl Pull {
    /// Reads what matches one of `filters` (everything, if there are none) from stream sequence `start` on.
    pub(super) async fn open(
        js: &JetStream,
        stream: &str,
        filters: &[String],
        start: u64,
        heartbeat: Duration,
    ) -> Result<Self, ApiError> {
        let client = js.client();
        let inbox = client.new_inbox();
        // The inbox ends with a token that is not given out twice.
        let name = format!("r_{}", inbox.rsplit('.').next().unwrap_or_default());
        let mut config = json!({
            "name": name,
            "deliver_policy": "by_start_sequence", "opt_start_seq": start.max(1),
            "ack_policy": "none", "replay_policy": "instant",
            "mem_storage": true, "num_replicas": 1,
            "inactive_threshold": u64::try_from(INACTIVE.as_nanos()).unwrap_or(u64::MAX),
        });
        // A single filter has the server's faster path.
        match filters {
            [] => {}
            [one] => config["filter_subject"] = json!(one),
            several => config["filter_subjects"] = json!(several),
        }
        let subscription = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| ApiError::Unavailable(error.to_string()))?;
        let info = js.put_consumer(stream, &name, &config).await?;
        for key in ["filter_subject", "filter_subjects"] {
            if info.config.get(key) != config.get(key) {
                return Err(ApiError::Unavailable(format!(
                    "the consumer's {key} is not what was asked for"
                )));
            }
        }
        Ok(Self {
            js: js.clone(),
            stream: stream.to_owned(),
            next_subject: Subject::from(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}")),
            name,
            inbox: Subject::from(inbox),
            subscription,
            heartbeat,
            credits: 0,
            consumer_sequence: 0,
            opened_at: info.ts.map(Timestamp::from_utc),
        })
    }

    /// The next event. Not cancel safe: a pull that was cancelled here is to be closed.
    pub(super) async fn next(&mut self) -> Result<Pulled, Broken> {
        loop {
            if self.credits <= CREDITS / 2 {
                self.ask().await?;
            }
            let message = match self.subscription.next().now_or_never() {
                Some(message) => message,
                // Two heartbeats missed: the server has forgotten the pull, or we are not connected.
                None => tokio::time::timeout(self.heartbeat * 2, self.subscription.next())
                    .await
                    .map_err(|_| Broken("the server sends no heartbeats".to_owned()))?,
            };
            let message = message.ok_or_else(|| Broken("the subscription ended".to_owned()))?;
            if let Some(pulled) = self.take(message)? {
                return Ok(pulled);
            }
        }
    }

    pub(super) async fn close(mut self) {
        let _ = self.subscription.unsubscribe().now_or_never();
        self.js.forget_consumer(&self.stream, &self.name).await;
    }

    async fn ask(&mut self) -> Result<(), Broken> {
        let batch = CREDITS - self.credits;
        let max_bytes = BESIDE_LARGEST + self.js.client().max_payload();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let body = format!(
            r#"{{"batch":{batch},"max_bytes":{max_bytes},"expires":{},"idle_heartbeat":{}}}"#,
            nanos(EXPIRES),
            nanos(self.heartbeat)
        );
        // Before sending: the answers may be faster than this task.
        self.credits += batch;
        let sending =
            self.js
                .client()
                .publish_with_reply(self.next_subject.clone(), self.inbox.clone(), Bytes::from(body));
        match tokio::time::timeout(self.heartbeat * 2, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Broken(error.to_string())),
            Err(_) => Err(Broken("not connected".to_owned())),
        }
    }

    fn take(&mut self, message: Message) -> Result<Option<Pulled>, Broken> {
        // Before the status: a stored message can have one too, as its publisher likes.
        let position = message.reply.as_ref().and_then(|reply| Position::parse(reply));
        if let Some(position) = position {
            if position.consumer_sequence != self.consumer_sequence + 1 {
                return Err(Broken(format!(
                    "delivery {} follows delivery {}",
                    position.consumer_sequence, self.consumer_sequence
                )));
            }
            self.consumer_sequence = position.consumer_sequence;
            self.credits = self.credits.saturating_sub(1);
            return Ok(Some(Pulled::Message { message, position }));
        }
        let status = message
            .status
            .ok_or_else(|| Broken("a message without a position".to_owned()))?;
        let number = |name: &str| {
            let value = message.headers.as_ref()?.get(name)?;
            value.as_str().parse::<u64>().ok()
        };
        if status == StatusCode::IDLE_HEARTBEAT {
            // Pulls send the stream's side of it only where they have one.
            let (Some(consumer), Some(stream_sequence)) = (number("Nats-Last-Consumer"), number("Nats-Last-Stream"))
            else {
                return Ok(None);
            };
            if consumer != self.consumer_sequence {
                return Err(Broken(format!(
                    "the server has delivered up to {consumer}, received is {}",
                    self.consumer_sequence
                )));
            }
            return Ok(Some(Pulled::Idle { stream_sequence }));
        }
        // An expired or completed pull says how much of it was not used; anything else means the consumer is gone.
        match number("Nats-Pending-Messages") {
            Some(unused) if status == StatusCode::TIMEOUT || status == StatusCode::REQUEST_TERMINATED => {
                self.credits = self.credits.saturating_sub(u32::try_from(unused).unwrap_or(u32::MAX));
                Ok(None)
            }
            _ => Err(Broken(format!(
                "the server ended the pull: {} {}",
                status.as_u16(),
                message.description.as_deref().unwrap_or_default()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_acknowledgement_subjects_are_read() {
        let expected = Some(Position {
            stream_sequence: 42,
            consumer_sequence: 7,
            nanos: 1_700_000_000_123_456_789,
        });
        for (reply, position) in [
            ("$JS.ACK.KNARR_IN.c.1.42.7.1700000000123456789.0", expected),
            ("$JS.ACK._.AHASH.KNARR_IN.c.1.42.7.1700000000123456789.0", expected),
            ("$JS.ACK._.AHASH.KNARR_IN.c.1.42.7.1700000000123456789.0.tok", expected),
            ("$JS.ACK.KNARR_IN.c.1.42.7.1700000000123456789", None),
            ("$JS.ACK.KNARR_IN.c.1.x.7.1700000000123456789.0", None),
            ("_INBOX.a", None),
        ] {
            assert_eq!(Position::parse(reply), position, "{reply}");
        }
    }

    fn delivered(consumer_sequence: u64) -> Message {
        Message {
            subject: Subject::from_static("knarr.in.0.default.o-1.result"),
            reply: Some(Subject::from(format!(
                "$JS.ACK.KNARR_IN.c.1.{consumer_sequence}.{consumer_sequence}.1.0"
            ))),
            payload: Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn status(code: u16, headers: &[(&'static str, &str)]) -> Message {
        let mut map = async_nats::HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        Message {
            status: Some(StatusCode::from_u16(code).unwrap()),
            headers: Some(map),
            reply: None,
            ..delivered(1)
        }
    }

    #[tokio::test]
    async fn a_missing_delivery_breaks_the_pull_and_unused_credit_comes_back() {
        let server = super::super::test_server::TestServer::start();
        let js = JetStream::new(async_nats::connect(server.url()).await.unwrap());
        let stream = json!({ "name": "S", "subjects": ["s"], "storage": "memory", "retention": "limits" });
        let _: serde_json::Value = js.call("STREAM.CREATE.S", &stream).await.unwrap();
        let mut pull = Pull::open(&js, "S", &[], 1, Duration::from_secs(5)).await.unwrap();
        pull.ask().await.unwrap();
        assert_eq!(pull.credits, CREDITS);
        assert!(matches!(pull.take(delivered(1)), Ok(Some(Pulled::Message { .. }))));
        assert!(
            pull.take(status(408, &[("Nats-Pending-Messages", "200")]))
                .unwrap()
                .is_none()
        );
        assert_eq!(pull.credits, CREDITS - 201);
        let heartbeat = |consumer| status(100, &[("Nats-Last-Consumer", consumer), ("Nats-Last-Stream", "9")]);
        assert!(matches!(
            pull.take(heartbeat("1")),
            Ok(Some(Pulled::Idle { stream_sequence: 9 }))
        ));
        assert!(pull.take(heartbeat("2")).is_err());
        assert!(pull.take(delivered(3)).is_err());
        assert!(pull.take(delivered(1)).is_err());
        assert!(pull.take(status(409, &[])).is_err());
        assert!(pull.take(status(503, &[])).is_err());
        assert!(pull.take(delivered(2)).is_ok());
        let with_a_status = Message {
            status: Some(StatusCode::NO_RESPONDERS),
            ..delivered(3)
        };
        assert!(matches!(pull.take(with_a_status), Ok(Some(Pulled::Message { .. }))));
    }
}
