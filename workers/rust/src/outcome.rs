//! The outcome of a task as headers and body of a result.

use std::fmt::Write as _;

use async_nats::{HeaderMap, HeaderName};
use bytes::Bytes;
use knarr_schemas::header;

use crate::body::Reference;
use crate::error::{ActivityError, ErrorKind};

/// Longest error message and type that are sent, in bytes; what is longer is cut.
const MAX_MESSAGE_BYTES: usize = 2048;
const MAX_TYPE_BYTES: usize = 128;

/// Kept until it is confirmed; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The output, as JSON.
    Completed(Bytes),
    /// The output is an object.
    Stored(Reference),
    Error(Box<ActivityError>),
}

impl Outcome {
    pub(crate) fn body(&self) -> Bytes {
        match self {
            Self::Completed(output) => output.clone(),
            Self::Stored(_) | Self::Error(_) => Bytes::new(),
        }
    }

    /// Adds the headers that say what happened; *completed* needs none.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        let mut put = |name: &'static str, value: &str| headers.insert(HeaderName::from_static(name), value);
        let error = match self {
            Self::Completed(_) => return,
            Self::Stored(reference) => {
                for (name, value) in reference.headers() {
                    put(name, &value);
                }
                return;
            }
            Self::Error(error) => error,
        };
        put(header::OUTCOME, error.kind.as_str());
        if error.kind == ErrorKind::Later {
            return;
        }
        put(header::ERROR_TYPE, &header_text(&error.error_type, MAX_TYPE_BYTES));
        put(header::ERROR_MESSAGE, &header_text(&error.message, MAX_MESSAGE_BYTES));
        if !error.retryable {
            put(header::RETRYABLE, "false");
        }
        if error.not_done {
            put(header::NOT_DONE, "true");
        }
        if let Some(after) = error.retry_after {
            let mut text = String::with_capacity(12);
            // Writing to a String cannot fail.
            let _ = write!(text, "{}ms", after.as_millis());
            put(header::RETRY_AFTER, &text);
        }
    }
}

/// What a header can carry: one line, no control characters, within `limit` bytes.
fn header_text(text: &str, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn outcomes_become_headers() {
        let all = |outcome: &Outcome| {
            let mut headers = HeaderMap::new();
            outcome.write_headers(&mut headers);
            let mut lines: Vec<_> = headers.iter().map(|(k, v)| format!("{k}: {}", v[0])).collect();
            lines.sort();
            lines
        };
        assert!(all(&Outcome::Completed(Bytes::from_static(b"{}"))).is_empty());
        let error = ActivityError::failed("no_stock", "two lines\r\nhere")
            .non_retryable()
            .not_done()
            .retry_after(Duration::from_millis(1500));
        assert_eq!(
            all(&Outcome::Error(Box::new(error))),
            [
                "Knarr-Error-Message: two lines  here",
                "Knarr-Error-Type: no_stock",
                "Knarr-Not-Done: true",
                "Knarr-Outcome: failed",
                "Knarr-Retry-After: 1500ms",
                "Knarr-Retryable: false",
            ]
        );
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = "ü".repeat(MAX_MESSAGE_BYTES);
        assert_eq!(header_text(&text, MAX_MESSAGE_BYTES).len(), MAX_MESSAGE_BYTES);
        assert_eq!(header_text(&text, 3).len(), 2);
    }
}
