//! Headers between Knarr's ordered list and the client's map. Names that Knarr knows are shared, never copied.
//!
//! The client's map keeps no order between names; values of one name keep theirs.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use knarr_schemas::header as name;

use crate::bus::Headers;

struct Known {
    shared: Arc<str>,
    client: HeaderName,
}

static KNOWN: LazyLock<HashMap<&'static str, Known>> = LazyLock::new(|| {
    [
        name::NAMESPACE,
        name::WORKFLOW,
        name::WORKFLOW_ID,
        name::RUN_ID,
        name::STEP,
        name::ACTIVITY,
        name::TASK,
        name::TOKEN,
        name::ATTEMPT,
        name::MAX_ATTEMPTS,
        name::DIRECTION,
        name::IDEMPOTENCY_KEY,
        name::DEADLINE,
        name::START_TO_CLOSE,
        name::REPLY,
        name::DIRECT,
        name::TRACEPARENT,
        name::OUTCOME,
        name::ERROR_TYPE,
        name::ERROR_MESSAGE,
        name::RETRYABLE,
        name::NOT_DONE,
        name::RETRY_AFTER,
        name::RUNNING_MS,
        name::VERSION,
        name::ID_REUSE,
        name::ID_CONFLICT,
        name::PRIORITY,
        name::SEARCH_ATTRIBUTES,
        name::REPLY_ON,
        name::REPLY_TO,
        name::REQUEST_ID,
        name::VERB,
        name::BY,
        name::REASON,
        name::ERROR_CODE,
        name::ERROR_REMEDY,
        name::ORIGINAL_SUBJECT,
        name::ORIGINAL_SEQUENCE,
        name::ORIGINAL_HEADERS,
        name::ORIGINAL_BYTES,
        name::NATS_MSG_ID,
        name::BODY,
        name::BODY_DIGEST,
        name::BODY_SIZE,
        "Knarr-Confirm",
        "Nats-Expected-Stream",
    ]
    .into_iter()
    .map(|text| {
        let known = Known {
            shared: Arc::from(text),
            client: HeaderName::from_static(text),
        };
        (text, known)
    })
    .collect()
});

/// The name, copied only if it is none of Knarr's.
pub(super) fn shared(name: &str) -> Arc<str> {
    KNOWN
        .get(name)
        .map_or_else(|| Arc::from(name), |known| Arc::clone(&known.shared))
}

pub(super) fn from_client(map: Option<&HeaderMap>) -> Headers {
    let Some(map) = map else { return Headers::new() };
    let mut headers = Headers::with_capacity(map.len());
    for (name, values) in map.iter() {
        let shared = shared(name.as_ref());
        for value in values {
            headers.push((Arc::clone(&shared), value.as_str().to_owned()));
        }
    }
    headers
}

/// The error says which header cannot be sent.
pub(super) fn to_client(headers: Headers) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        // The client panics on what it cannot send.
        if value.contains(['\r', '\n']) {
            return Err(format!("the value of header {name} contains a line break"));
        }
        let client = match KNOWN.get(&*name) {
            Some(known) => known.client.clone(),
            None => HeaderName::try_from(&*name).map_err(|_| format!("`{name}` is not a header name"))?,
        };
        map.append(client, HeaderValue::from(value));
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_both_ways_and_bad_ones_are_refused() {
        let headers: Headers = vec![
            (Arc::from(name::TOKEN), "t".to_owned()),
            (Arc::from("X-Own"), "1".to_owned()),
            (Arc::from("X-Own"), "2".to_owned()),
        ];
        let mut back = from_client(Some(&to_client(headers.clone()).unwrap()));
        back.sort();
        assert_eq!(back, headers);
        for (name, value) in [("a:b", "x"), ("a", "x\ny"), ("a\n", "x")] {
            assert!(
                to_client(vec![(Arc::from(name), value.to_owned())]).is_err(),
                "{name:?}"
            );
        }
        assert!(from_client(None).is_empty());
    }
}
