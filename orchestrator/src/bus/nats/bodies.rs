//! Bodies that are too large to travel in a message: put into their namespace's object store before the message is published,
//! and fetched before it is handed over, so that the engine knows nothing of it.
//!
//! What is stored of a run is the body itself, in PostgreSQL: publishing again needs nothing else, and puts another object.
//! Objects go by age, but for those whose message was refused: it is offered again with another one. Where the bucket is full,
//! what NATS takes travels in its message all the same. A message that cannot be given its body keeps its reference and is told
//! why (`Knarr-Error-Code`): it is refused like any other that makes no sense.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use knarr_schemas::code::{self, Code};
use knarr_schemas::header;
use knarr_schemas::subject::{self, LogSubject, MAX_INLINE_BYTES, parse_log_subject};
use knarr_worker::body::{self, BodyError};
use tokio::time::Instant;

use super::Shared;
use super::jetstream::MessageQuery;
use crate::bus::{self, Delivery, Headers, Outgoing, PublishError};

/// Of anything that is the user's own: the most that may be configured. A larger object is not even read.
pub(super) const MAX_BODY_BYTES: usize = 2 << 20;
/// Of what one run says to another: a body and what is said about it, in whichever form its numbers are written.
const MAX_RUN_MESSAGE_BYTES: usize = 16 << 20;
/// Of the log's bodies while they are fetched and not yet counted by an inlet, over all partitions: a reader each would hold
/// one, and who may speak to the log may name the largest.
pub(super) const LOG_MEBIBYTES: usize = 64;
/// Objects put at a time for one call.
const PUTS_AT_ONCE: usize = 8;
/// A store that does not answer is asked for so long before a message is handed over without its body.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);
/// An object that the leader of the stream has, and whichever replica was asked has not, is asked for again, so often.
const BEHIND: u32 = 5;
const BEHIND_PAUSE: Duration = Duration::from_millis(200);

/// The namespace of a message whose body is to be an object. Dead letters are cut instead, answers say where to ask.
fn namespace_if_large(message: &Outgoing) -> Option<String> {
    if message.payload.len() <= MAX_INLINE_BYTES || message.delivery != Delivery::Stream {
        return None;
    }
    let mut tokens = message.subject.split('.');
    let ours = tokens.next() == Some("knarr") && matches!(tokens.next(), Some("task" | "run" | "event"));
    let namespace = subject::decode_token(tokens.next().filter(|_| ours)?).ok()?;
    Some(namespace.into_owned())
}

pub(super) fn any_large(messages: &[Outgoing]) -> bool {
    messages.iter().any(|message| namespace_if_large(message).is_some())
}

/// A message as it is to be published, and the object that was put for it.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) message: Outgoing,
    pub(super) object: Option<String>,
}

impl From<Outgoing> for Ready {
    fn from(message: Outgoing) -> Self {
        Self { message, object: None }
    }
}

/// Puts what is too large. Each message comes back as it is to be published, or with why it cannot be.
pub(super) async fn put_all(shared: &Shared, messages: Vec<Outgoing>) -> Vec<Result<Ready, PublishError>> {
    let put = |message: Outgoing| put_one(shared, message);
    futures_util::stream::iter(messages)
        .map(put)
        .buffered(PUTS_AT_ONCE)
        .collect()
        .await
}

async fn put_one(shared: &Shared, mut message: Outgoing) -> Result<Ready, PublishError> {
    let Some(namespace) = namespace_if_large(&message) else {
        return Ok(message.into());
    };
    // Not into the client's queue: see the publisher.
    if !shared.link.borrow().up {
        return Err(PublishError::Unacknowledged("not connected".to_owned()));
    }
    let is_task = message.subject.starts_with("knarr.task.");
    match body::put(shared.js.client(), &namespace, &message.payload).await {
        Ok(reference) => {
            let headers = reference.headers();
            message
                .headers
                .extend(headers.map(|(name, value)| (super::header_map::shared(name), value)));
            message.payload = Bytes::new();
            let object = Some(reference.object);
            Ok(Ready { message, object })
        }
        // Made again together with the namespace's queues.
        Err(BodyError::NoBucket(_)) if is_task => Err(PublishError::NoStream),
        // A namespace that is older than its bucket, until it has a large task; or what is there has to grow old.
        Err(BodyError::NoBucket(_) | BodyError::Full(_)) if message.size() <= shared.js.client().max_payload() => {
            Ok(message.into())
        }
        Err(BodyError::Full(_)) if is_task => Err(PublishError::Full),
        Err(error) => Err(PublishError::Unacknowledged(error.to_string())),
    }
}

/// Whether a message is not stored, and will not be.
pub(super) fn is_refused(outcome: &Result<(), PublishError>) -> bool {
    matches!(
        outcome,
        Err(PublishError::Full | PublishError::NoStream | PublishError::Refused(_))
    )
}

/// Deletes objects that no message names. What is left of them goes by age.
pub(super) async fn forget(shared: &Shared, objects: Vec<String>) {
    for object in objects {
        let Some((bucket, name)) = object.split_once('/') else {
            continue;
        };
        let Ok(record) = body::record_subject(bucket, &object) else {
            continue;
        };
        for filter in [record, format!("$O.{bucket}.C.{name}")] {
            let purge = serde_json::json!({ "filter": filter });
            let purged: Result<serde_json::Value, _> =
                shared.js.call(&format!("STREAM.PURGE.OBJ_{bucket}"), &purge).await;
            if let Err(error) = purged {
                tracing::debug!(%object, %error, "an object that nobody needs is left to its age");
            }
        }
    }
}

/// Whose object a message may name, and how large it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whose {
    namespace: String,
    most: usize,
}

impl Whose {
    /// Of a message of the log.
    pub(super) fn of_log(subject: &str) -> Option<Self> {
        let (namespace, is_message) = match parse_log_subject(subject).ok()? {
            LogSubject::Run(run) => (run.namespace, run.verb == "message"),
            LogSubject::UnkeyedStart { namespace, .. } => (namespace, false),
        };
        Some(Self {
            namespace: namespace.into_owned(),
            most: if is_message {
                MAX_RUN_MESSAGE_BYTES
            } else {
                MAX_BODY_BYTES
            },
        })
    }

    /// What its body may come to, for [`LOG_MEBIBYTES`].
    pub(super) fn mebibytes(&self) -> u32 {
        u32::try_from(self.most.div_ceil(1 << 20)).unwrap_or(u32::MAX)
    }

    /// Of a result.
    pub(super) fn of_direct(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            most: MAX_BODY_BYTES,
        }
    }
}

pub(super) fn is_elsewhere(headers: &Headers) -> bool {
    bus::header(headers, header::BODY).is_some()
}

/// Gives a message its body.
pub(super) async fn fetch(shared: &Shared, whose: &Whose, headers: &mut Headers, payload: Bytes) -> Bytes {
    let Some(object) = bus::header(headers, header::BODY).map(str::to_owned) else {
        return payload;
    };
    let digest = bus::header(headers, header::BODY_DIGEST).map(str::to_owned);
    // What is said here is said by nobody else.
    headers.retain(|(name, _)| ![header::ERROR_CODE, header::ERROR_MESSAGE].contains(&&**name));
    let found = if payload.is_empty() {
        ask(shared, whose, &object, digest.as_deref()).await
    } else {
        Err(BodyError::Reference("a message with a body of its own".to_owned()))
    };
    match found {
        Ok(body) => {
            let of_body = [header::BODY, header::BODY_DIGEST, header::BODY_SIZE];
            headers.retain(|(name, _)| !of_body.contains(&&**name));
            body
        }
        Err(error) => {
            headers.push((header::ERROR_CODE.into(), code_of(&error).id.to_owned()));
            headers.push((header::ERROR_MESSAGE.into(), error.to_string()));
            payload
        }
    }
}

async fn ask(shared: &Shared, whose: &Whose, object: &str, digest: Option<&str>) -> Result<Bytes, BodyError> {
    let mut link = shared.link.clone();
    let mut epoch = link.borrow().epoch;
    let mut until = Instant::now() + PATIENCE;
    let mut behind = 0;
    loop {
        let getting = body::get(shared.js.client(), &whose.namespace, object, digest, whose.most);
        let asked = tokio::time::timeout(PATIENCE, getting).await;
        if matches!(asked, Ok(Err(BodyError::Missing(_)))) && behind < BEHIND && leader_has(shared, whose, object).await
        {
            behind += 1;
            tokio::time::sleep(BEHIND_PAUSE).await;
            continue;
        }
        let error = match asked {
            // A server that comes up answers before its streams do.
            Ok(Err(error @ (BodyError::Unavailable(_) | BodyError::NoBucket(_)))) => error,
            Ok(settled) => return settled,
            Err(_) => BodyError::Unavailable("not within ten seconds".to_owned()),
        };
        // A closed watch means that the connection is gone for good, and whoever reads with it.
        let Ok(now) = link.wait_for(|link| link.up).await.map(|link| link.epoch) else {
            return Err(error);
        };
        if now != epoch {
            (epoch, until) = (now, Instant::now() + PATIENCE);
        } else if Instant::now() >= until {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Objects are read from any replica of their stream. Of a message that has just come its object may have reached the leader
/// and a majority, and not the replica that was asked.
async fn leader_has(shared: &Shared, whose: &Whose, object: &str) -> bool {
    let Ok(bucket) = subject::body_bucket(&whose.namespace) else {
        return false;
    };
    let Ok(record) = body::record_subject(&bucket, object) else {
        return false;
    };
    let query = MessageQuery {
        last_by_subj: Some(&record),
        ..MessageQuery::default()
    };
    let found = shared.js.message(&format!("OBJ_{bucket}"), &query).await;
    let Ok(Some(record)) = found else { return false };
    let record = record.payload().ok();
    let record: Option<serde_json::Value> = record.and_then(|text| serde_json::from_slice(&text).ok());
    record.is_some_and(|record| record["deleted"] != true)
}

fn code_of(error: &BodyError) -> &'static Code {
    match error {
        BodyError::Reference(_) => &code::BODY_REFERENCE,
        BodyError::Damaged(..) => &code::BODY_DAMAGED,
        BodyError::TooLarge { .. } => &code::BODY_TOO_LARGE,
        BodyError::Missing(_) | BodyError::NoBucket(_) | BodyError::Full(_) | BodyError::Unavailable(_) => {
            &code::BODY_MISSING
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_body_has_room_among_those_of_the_log() {
        let of = |subject: &str| Whose::of_log(subject).map(|whose| whose.mebibytes());
        assert_eq!(of("knarr.in.3.a.o-1.start.order"), Some(2));
        assert_eq!(of("knarr.in.3.a.o-1.message"), Some(16));
        assert!(of("knarr.in.3.a.o-1.message").is_some_and(|most| most as usize <= LOG_MEBIBYTES));
        assert_eq!(of("knarr.in.3.a"), None);
    }

    #[test]
    fn what_travels_beside_its_message() {
        let message = |subject: &str, bytes: usize, delivery| Outgoing {
            subject: subject.to_owned(),
            headers: Headers::new(),
            payload: vec![b'x'; bytes].into(),
            delivery,
        };
        let of = |subject, bytes| namespace_if_large(&message(subject, bytes, Delivery::Stream));
        assert_eq!(of("knarr.task.a%2Fb.orders.pay", MAX_INLINE_BYTES), None);
        assert_eq!(
            of("knarr.task.a%2Fb.orders.pay", MAX_INLINE_BYTES + 1).as_deref(),
            Some("a/b")
        );
        assert_eq!(
            of("knarr.run.a.o-1.message", MAX_INLINE_BYTES + 1).as_deref(),
            Some("a")
        );
        assert_eq!(
            of("knarr.event.a.order.o-1.paid", MAX_INLINE_BYTES + 1).as_deref(),
            Some("a")
        );
        for own in ["knarr.dlq.a.poison", "orders.shipped", "knarr.task"] {
            assert_eq!(of(own, MAX_INLINE_BYTES + 1), None, "{own}");
        }
        let answer = message("knarr.task.a.orders.pay", MAX_INLINE_BYTES + 1, Delivery::Core);
        assert_eq!(namespace_if_large(&answer), None);
    }
}
