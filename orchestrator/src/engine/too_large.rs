//! What is sent instead of a message that is larger than NATS takes, so that nobody waits for what never comes.
//!
//! A dead letter is cut; an answer says that the output has to be asked for; a start that was to be sent on, and an event for
//! a subject of the user's own, become dead letters. A task is its run's affair.

use bytes::Bytes;
use knarr_schemas::body::Answer;
use knarr_schemas::{code, header, subject};

use super::refusal::Refusal;
use crate::bus::{Delivery, Headers, Outgoing};

/// Headers of a dead letter that stay, whatever else has to go.
const KEPT: [&str; 7] = [
    header::NATS_MSG_ID,
    header::ERROR_CODE,
    header::ERROR_MESSAGE,
    header::ERROR_REMEDY,
    header::ORIGINAL_SUBJECT,
    header::ORIGINAL_SEQUENCE,
    header::ORIGINAL_BYTES,
];

/// `None` for a message that was refused for another reason than its size, or has no substitute. What is returned is
/// within the limit.
pub(super) fn instead_of(message: &Outgoing, max_payload: usize) -> Option<Outgoing> {
    if message.size() <= max_payload {
        return None;
    }
    let instead = match message.delivery {
        Delivery::Core if is_event(message) => cut(&dead_letter(message, max_payload), max_payload),
        Delivery::Core => short_answer(message)?,
        Delivery::Stream if message.subject.starts_with("knarr.dlq.") => cut(message, max_payload),
        Delivery::Stream => cut(&dead_letter(message, max_payload), max_payload),
    };
    (instead.size() <= max_payload).then_some(instead)
}

pub(super) fn refusal(bytes: usize, max_payload: usize) -> Refusal {
    Refusal::new(
        &code::BODY_TOO_LARGE,
        format!("with the headers that are added to it the message has {bytes} bytes; NATS takes {max_payload}"),
    )
}

/// Emitted to a subject of the user's own: whoever listens there knows nothing of the object store.
fn is_event(message: &Outgoing) -> bool {
    message.headers.iter().any(|(name, _)| &**name == header::CE_ID)
}

fn short_answer(message: &Outgoing) -> Option<Outgoing> {
    let mut answer: Answer = serde_json::from_slice(&message.payload).ok()?;
    answer.output = None;
    let bytes = message.payload.len();
    let error = code::ANSWER_TOO_LARGE.error(format!(
        "the answer with the run's output has {bytes} bytes, which is more than NATS takes."
    ));
    answer.error.get_or_insert(error);
    Some(Outgoing {
        payload: Bytes::from(serde_json::to_vec(&answer).ok()?),
        ..message.clone()
    })
}

/// Of a message that is Knarr's own, and lies nowhere else.
fn dead_letter(message: &Outgoing, max_payload: usize) -> Outgoing {
    let refusal = refusal(message.size(), max_payload);
    let namespace = subject::namespace_of(&message.subject);
    let mut headers: Headers = vec![
        (header::ERROR_CODE.into(), refusal.code.id.to_owned()),
        (header::ERROR_MESSAGE.into(), refusal.message.clone()),
        (header::ERROR_REMEDY.into(), refusal.code.remedy.to_owned()),
        (header::ORIGINAL_SUBJECT.into(), message.subject.clone()),
    ];
    headers.extend(message.headers.iter().cloned());
    Outgoing {
        subject: subject::dead_letter(namespace.as_deref(), refusal.code.title),
        headers,
        delivery: Delivery::Stream,
        ..message.clone()
    }
}

fn cut(letter: &Outgoing, max_payload: usize) -> Outgoing {
    let mut short = Outgoing {
        subject: letter.subject.clone(),
        headers: Headers::new(),
        payload: Bytes::new(),
        delivery: letter.delivery,
    };
    let mut others = Vec::new();
    for (name, value) in &letter.headers {
        if KEPT.contains(&&**name) {
            short.headers.push((name.clone(), value.clone()));
        } else {
            others.push((name, value));
        }
    }
    let original = (header::ORIGINAL_BYTES.into(), letter.payload.len().to_string());
    short.headers.push(original);
    for (name, value) in others {
        short.headers.push((name.clone(), value.clone()));
        if short.size() > max_payload / 2 {
            short.headers.pop();
        }
    }
    let room = max_payload.saturating_sub(short.size());
    short.payload = letter.payload.slice(..room.min(letter.payload.len()));
    short
}

#[cfg(test)]
mod tests {
    use knarr_schemas::body::AnswerStage;
    use serde_json::json;

    use super::*;
    use crate::bus::header;

    const MAX: usize = 4_096;

    fn message(subject: &str, headers: &[(&str, &str)], body: usize, delivery: Delivery) -> Outgoing {
        Outgoing {
            subject: subject.to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).to_owned()))
                .collect(),
            payload: Bytes::from(vec![b'x'; body]),
            delivery,
        }
    }

    /// One that is exactly so large.
    fn sized(subject: &str, headers: &[(&str, &str)], size: usize) -> Outgoing {
        let head = message(subject, headers, 0, Delivery::Stream).size();
        message(subject, headers, size - head, Delivery::Stream)
    }

    #[test]
    fn a_dead_letter_is_cut_and_says_so() {
        let long = "l".repeat(3_000);
        let headers = [
            (header::ERROR_CODE, "KN0206"),
            ("X-Long", &long),
            ("X-Own", "1"),
            (header::ORIGINAL_SEQUENCE, "7"),
        ];
        let letter = |size| sized("knarr.dlq.a.b", &headers, size);
        assert_eq!(instead_of(&letter(MAX), MAX), None);
        let whole = letter(MAX + 1);
        let short = instead_of(&whole, MAX).unwrap();
        let value = |name| header(&short.headers, name);
        assert_eq!((value(header::ERROR_CODE), value("X-Own")), (Some("KN0206"), Some("1")));
        assert_eq!((value(header::ORIGINAL_SEQUENCE), value("X-Long")), (Some("7"), None));
        assert_eq!(value(header::ORIGINAL_BYTES), Some(&*whole.payload.len().to_string()));
        let large = instead_of(&letter(100 * MAX), MAX).unwrap();
        assert_eq!(large.size(), MAX);
        assert_eq!(instead_of(&large, MAX), None);
    }

    #[test]
    fn a_start_that_cannot_be_sent_on_becomes_a_dead_letter() {
        let start = sized("knarr.run.team.o-1.start.order", &[("X-Own", "1")], MAX + 1);
        let letter = instead_of(&start, MAX).unwrap();
        assert_eq!(letter.subject, "knarr.dlq.team.body_too_large");
        assert_eq!(header(&letter.headers, header::ORIGINAL_SUBJECT), Some(&*start.subject));
        assert!(letter.size() <= MAX);
    }

    #[test]
    fn an_event_that_nats_does_not_take_becomes_a_dead_letter() {
        let headers = [(header::CE_ID, "r/7/0"), (header::CE_SOURCE, "/knarr/team/order/o-1")];
        let event = |body| message("orders.paid", &headers, body, Delivery::Core);
        let head = event(0).size();
        assert_eq!(instead_of(&event(MAX - head), MAX), None);
        let letter = instead_of(&event(MAX - head + 1), MAX).unwrap();
        let value = |name| header(&letter.headers, name);
        assert_eq!(
            (letter.subject.as_str(), letter.delivery),
            ("knarr.dlq._.body_too_large", Delivery::Stream)
        );
        assert_eq!(value(header::ORIGINAL_SUBJECT), Some("orders.paid"));
        assert_eq!(value(header::CE_SOURCE), Some("/knarr/team/order/o-1"));
        assert!(letter.size() <= MAX);
    }

    #[test]
    fn an_answer_says_that_its_output_has_to_be_asked_for() {
        let answer = Answer {
            workflow_id: "o-1".to_owned(),
            run_id: None,
            stage: AnswerStage::Closed,
            status: Some("completed".to_owned()),
            output: Some(json!("x".repeat(MAX))),
            failure: None,
            error: None,
        };
        let mut long = message("_INBOX.a", &[], 0, Delivery::Core);
        long.payload = Bytes::from(serde_json::to_vec(&answer).unwrap());
        let short: Answer = serde_json::from_slice(&instead_of(&long, MAX).unwrap().payload).unwrap();
        assert_eq!((short.stage, short.output), (AnswerStage::Closed, None));
        assert_eq!(short.error.unwrap().code, code::ANSWER_TOO_LARGE.id);
        assert_eq!(
            instead_of(&message("_INBOX.a", &[], MAX + 1, Delivery::Core), MAX),
            None
        );
    }
}
