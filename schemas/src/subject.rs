//! Subjects: composing and parsing, percent-encoding of tokens, and the partition of a workflow id.

use std::borrow::Cow;

/// Longest encoded token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 200;

/// Why a text cannot be a subject token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("is empty")]
    Empty,
    #[error("is {0} bytes long once encoded; the limit is {MAX_TOKEN_BYTES}")]
    TooLong(usize),
    #[error("is not canonically percent-encoded")]
    NotCanonical,
    #[error("is not valid UTF-8 once decoded")]
    NotUtf8,
    #[error("contains a control character (U+0000 to U+001F, U+007F)")]
    Control,
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Encodes a text as one subject token: `[A-Za-z0-9_-]` stay, every other byte becomes `%XX` (upper case). Control
/// characters have no encoding: PostgreSQL does not store all of them, and no terminal shows them.
pub fn encode_token(text: &str) -> Result<Cow<'_, str>, TokenError> {
    if text.is_empty() {
        return Err(TokenError::Empty);
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(TokenError::Control);
    }
    let encoded = if text.bytes().all(is_plain) {
        Cow::Borrowed(text)
    } else {
        let mut out = String::with_capacity(text.len() + 16);
        for byte in text.bytes() {
            if is_plain(byte) {
                out.push(byte as char);
            } else {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)] as char);
                out.push(HEX[usize::from(byte & 15)] as char);
            }
        }
        Cow::Owned(out)
    };
    if encoded.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLong(encoded.len()));
    }
    Ok(encoded)
}

/// The inverse of [`encode_token`]; an encoding that is not the canonical one is refused, so that one text has one subject.
pub fn decode_token(token: &str) -> Result<Cow<'_, str>, TokenError> {
    if token.is_empty() {
        return Err(TokenError::Empty);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLong(token.len()));
    }
    if token.bytes().all(is_plain) {
        return Ok(Cow::Borrowed(token));
    }
    let bytes = token.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digit = |offset: usize| match bytes.get(at + offset) {
                    Some(d @ b'0'..=b'9') => Ok(d - b'0'),
                    Some(d @ b'A'..=b'F') => Ok(d - b'A' + 10),
                    _ => Err(TokenError::NotCanonical),
                };
                let byte = digit(1)? << 4 | digit(2)?;
                if is_plain(byte) {
                    return Err(TokenError::NotCanonical);
                }
                if byte.is_ascii_control() {
                    return Err(TokenError::Control);
                }
                out.push(byte);
                at += 3;
            }
            byte if is_plain(byte) => {
                out.push(byte);
                at += 1;
            }
            _ => return Err(TokenError::NotCanonical),
        }
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| TokenError::NotUtf8)
}

/// The partition of a workflow id: what NATS's own `partition(n, 1, 2)` mapping computes over the *encoded* tokens
/// (FNV-1a, 32 bits, of the tokens' bytes one after the other, modulo n).
pub fn partition_of(namespace_token: &str, workflow_id_token: &str, partitions: u16) -> u16 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in namespace_token.bytes().chain(workflow_id_token.bytes()) {
        hash ^= u32::from(byte);
        hash = hash.wrapping_mul(0x0100_0193);
    }
    // The remainder of a division by a u16 fits a u16.
    (hash % u32::from(partitions.max(1))) as u16
}

/// A message addressed to a run, as it stands in the log: `knarr.in.<partition>.<ns>.<workflow id>.<verb>[.<name>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSubject<'a> {
    pub namespace: Cow<'a, str>,
    pub workflow_id: Cow<'a, str>,
    pub verb: &'a str,
    /// What stands behind the verb: a workflow for `start`, a signal's name for `signal`, the action for `parked`; still
    /// encoded.
    pub name: Option<&'a str>,
}

/// What a subject in the log can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSubject<'a> {
    Run(RunSubject<'a>),
    /// `knarr.start.<ns>.<workflow>`: a start without an id.
    UnkeyedStart {
        namespace: Cow<'a, str>,
        workflow: Cow<'a, str>,
    },
}

/// Why a subject of the log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("the subject does not have the form of a start or of a message to a run")]
    Shape,
    #[error("the {part} in the subject {error}")]
    Token { part: &'static str, error: TokenError },
}

/// Reads a subject of the log stream, in the form it is stored (`knarr.in.…`), or is published (`knarr.run.…`, `knarr.start.…`).
pub fn parse_log_subject(subject: &str) -> Result<LogSubject<'_>, SubjectError> {
    let token = |part, text| decode_token(text).map_err(|error| SubjectError::Token { part, error });
    let rest = if let Some(rest) = subject.strip_prefix("knarr.in.") {
        rest.split_once('.').ok_or(SubjectError::Shape)?.1
    } else if let Some(rest) = subject.strip_prefix("knarr.run.") {
        rest
    } else if let Some(rest) = subject.strip_prefix("knarr.start.") {
        let (namespace, workflow) = rest.split_once('.').ok_or(SubjectError::Shape)?;
        return Ok(LogSubject::UnkeyedStart {
            namespace: token("namespace", namespace)?,
            workflow: token("workflow", workflow)?,
        });
    } else {
        return Err(SubjectError::Shape);
    };
    let mut parts = rest.splitn(4, '.');
    let (Some(namespace), Some(workflow_id), Some(verb)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(SubjectError::Shape);
    };
    Ok(LogSubject::Run(RunSubject {
        namespace: token("namespace", namespace)?,
        workflow_id: token("workflow id", workflow_id)?,
        verb,
        name: parts.next(),
    }))
}

/// What was published, for a subject in the form in which the log stores it.
pub fn published(subject: &str) -> Cow<'_, str> {
    match subject.strip_prefix("knarr.in.").and_then(|rest| rest.split_once('.')) {
        Some((_, rest)) => Cow::Owned(format!("knarr.run.{rest}")),
        None => Cow::Borrowed(subject),
    }
}

/// The namespace of a subject of the log whose other parts may make no sense.
pub fn namespace_of(subject: &str) -> Option<Cow<'_, str>> {
    let rest = match subject.strip_prefix("knarr.in.") {
        Some(rest) => rest.split_once('.')?.1,
        None => subject
            .strip_prefix("knarr.run.")
            .or_else(|| subject.strip_prefix("knarr.start."))?,
    };
    decode_token(rest.split('.').next()?).ok()
}

/// `knarr.run.<ns>.<workflow id>.start.<workflow>`
pub fn start(namespace: &str, workflow_id: &str, workflow: &str) -> Result<String, TokenError> {
    Ok(format!(
        "knarr.run.{}.{}.start.{}",
        encode_token(namespace)?,
        encode_token(workflow_id)?,
        encode_token(workflow)?
    ))
}

/// `knarr.start.<ns>.<workflow>`
pub fn unkeyed_start(namespace: &str, workflow: &str) -> Result<String, TokenError> {
    Ok(format!(
        "knarr.start.{}.{}",
        encode_token(namespace)?,
        encode_token(workflow)?
    ))
}

/// `knarr.run.<ns>.<workflow id>.<verb>`, for `cancel`, `terminate`, `result` and their like.
pub fn run_verb(namespace: &str, workflow_id: &str, verb: &str) -> Result<String, TokenError> {
    Ok(format!(
        "knarr.run.{}.{}.{verb}",
        encode_token(namespace)?,
        encode_token(workflow_id)?
    ))
}

/// `knarr.run.<ns>.<workflow id>.parked.<action>`: `retry`, `edit`, `done` or `skip`.
pub fn parked(namespace: &str, workflow_id: &str, action: &str) -> Result<String, TokenError> {
    Ok(format!("{}.{action}", run_verb(namespace, workflow_id, "parked")?))
}

/// `knarr.event.<ns>.<workflow>.<workflow id>.<kind>`; the workflow id is encoded already.
pub fn event(namespace: &str, workflow: &str, workflow_id_token: &str, kind: &str) -> Result<String, TokenError> {
    Ok(format!(
        "knarr.event.{}.{}.{workflow_id_token}.{}",
        encode_token(namespace)?,
        encode_token(workflow)?,
        encode_token(kind)?
    ))
}

/// `knarr.run.<ns>.<workflow id>.signal.<name>`
pub fn signal(namespace: &str, workflow_id: &str, name: &str) -> Result<String, TokenError> {
    Ok(format!(
        "{}.{}",
        run_verb(namespace, workflow_id, "signal")?,
        encode_token(name)?
    ))
}

/// `knarr.run.<ns>.<workflow id>.update.<name>`
pub fn update(namespace: &str, workflow_id: &str, name: &str) -> Result<String, TokenError> {
    Ok(format!(
        "{}.{}",
        run_verb(namespace, workflow_id, "update")?,
        encode_token(name)?
    ))
}

/// `knarr.direct.<ns>.<partition>`: the prefix a task names; `.result`, `.beat` or `.claim` follows.
pub fn direct(namespace: &str, partition: u16) -> Result<String, TokenError> {
    Ok(format!("knarr.direct.{}.{partition}", encode_token(namespace)?))
}

/// `knarr.task.<ns>.<queue>.<activity>`
pub fn task(namespace: &str, queue: &str, activity: &str) -> Result<String, TokenError> {
    Ok(format!(
        "knarr.task.{}.{}.{}",
        encode_token(namespace)?,
        encode_token(queue)?,
        encode_token(activity)?
    ))
}

/// `knarr.cancel.<ns>.<queue>`: pushes of [`crate::body::CancelTasks`] to the workers of a queue.
pub fn cancel(namespace: &str, queue: &str) -> Result<String, TokenError> {
    Ok(format!(
        "knarr.cancel.{}.{}",
        encode_token(namespace)?,
        encode_token(queue)?
    ))
}

/// `knarr.dlq.<ns>.<reason>`; a namespace that cannot be read is `_`.
pub fn dead_letter(namespace: Option<&str>, reason: &str) -> String {
    let namespace = namespace
        .and_then(|n| encode_token(n).ok())
        .unwrap_or(Cow::Borrowed("_"));
    format!("knarr.dlq.{namespace}.{reason}")
}

/// `knarr.api.<ns>.<verb>`
pub fn api(namespace: &str, verb: &str) -> Result<String, TokenError> {
    Ok(format!("knarr.api.{}.{verb}", encode_token(namespace)?))
}

/// The stream of a namespace's tasks. Stream names cannot hold `%`; it becomes `=`.
pub fn task_stream(namespace: &str) -> Result<String, TokenError> {
    Ok(format!("KNARR_TASKS_{}", encode_token(namespace)?.replace('%', "=")))
}

/// A body up to this many bytes travels in its message; a larger one is an object. What others send may be in the message up
/// to what NATS takes.
pub const MAX_INLINE_BYTES: usize = 128 * 1024;

/// The bucket of a namespace's large bodies; its stream has `OBJ_` before it.
pub fn body_bucket(namespace: &str) -> Result<String, TokenError> {
    Ok(format!("KNARR_BODIES_{}", encode_token(namespace)?.replace('%', "=")))
}

/// The durable consumer of a queue on its namespace's task stream.
pub fn queue_consumer(queue: &str) -> Result<String, TokenError> {
    Ok(format!("q_{}", encode_token(queue)?.replace('%', "=")))
}

/// The log.
pub const LOG_STREAM: &str = "KNARR_IN";
/// What could not be taken.
pub const DLQ_STREAM: &str = "KNARR_DLQ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_have_one_encoding() {
        for text in ["a", "order-1", "Grüße/2026", "a.b*c>d %", "100%"] {
            let encoded = encode_token(text).unwrap().into_owned();
            assert_eq!(decode_token(&encoded).unwrap(), text);
        }
        assert_eq!(decode_token("%41"), Err(TokenError::NotCanonical));
        assert_eq!(decode_token("%2f"), Err(TokenError::NotCanonical));
        assert_eq!(decode_token("%2"), Err(TokenError::NotCanonical));
        assert_eq!(decode_token("%FF"), Err(TokenError::NotUtf8));
        for (text, token) in [("a\0", "a%00"), ("\n", "%0A"), ("\x1f", "%1F"), ("\x7f", "%7F")] {
            assert_eq!(encode_token(text), Err(TokenError::Control));
            assert_eq!(decode_token(token), Err(TokenError::Control));
        }
        assert_eq!(decode_token("%20").unwrap(), " ");
        assert_eq!(decode_token("%C2%80").unwrap(), "\u{80}");
        assert!(encode_token(&"x".repeat(200)).is_ok());
        assert_eq!(encode_token(&"x".repeat(201)), Err(TokenError::TooLong(201)));
    }

    #[test]
    fn the_subject_of_the_log_is_taken_back_to_the_published_one() {
        assert_eq!(
            published("knarr.in.39.shop.o%2F1.start.order"),
            "knarr.run.shop.o%2F1.start.order"
        );
        for same in [
            "knarr.start.shop.order",
            "knarr.run.shop.o-1.cancel",
            "orders.placed",
            "knarr.in",
        ] {
            assert_eq!(published(same), same);
        }
    }

    #[test]
    fn log_subjects_parse_in_both_forms() {
        let run = |s| match parse_log_subject(s) {
            Ok(LogSubject::Run(run)) => run,
            other => panic!("{other:?}"),
        };
        let subject = run("knarr.in.7.default.o%2F1.start.order");
        assert_eq!(
            (subject.workflow_id.as_ref(), subject.verb, subject.name),
            ("o/1", "start", Some("order"))
        );
        assert_eq!(run("knarr.run.default.o-1.result").name, None);
        assert_eq!(parse_log_subject("knarr.run.default.o-1"), Err(SubjectError::Shape));
        assert_eq!(
            namespace_of("knarr.in.7.default.%61.start.x").as_deref(),
            Some("default")
        );
        assert_eq!(namespace_of("knarr.start.a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(namespace_of("knarr.run.%2f.a.start.x"), None);
        assert_eq!(parse_log_subject("other.run.default.o-1.x"), Err(SubjectError::Shape));
    }
}
