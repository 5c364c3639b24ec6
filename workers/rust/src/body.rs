//! Bodies that are too large to travel in a message: objects of NATS's object store, named by a header.
//!
//! A message whose body has more than [`MAX_INLINE_BYTES`] carries `Knarr-Body: <bucket>/<name>` and is empty; the object is put
//! before the message is published. Objects are those of every NATS client (chunks of 128 KiB and a record of them), written
//! and read here over plain requests, so that nothing is left behind on the server by whoever dies.
//!
//! **Invariants:** every put has a name of its own, so that an object never changes under a reader; what is read has the size
//! and the digest that its record and the message say, or is an error.
//!
//! Nothing is deleted here: the bucket forgets by age.

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::{Client, HeaderMap};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::{Bytes, BytesMut};
use knarr_schemas::{header, subject};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use knarr_schemas::subject::MAX_INLINE_BYTES;

/// As other clients have it, unless the server takes less in a message.
const CHUNK_BYTES: usize = 128 * 1024;
/// Chunks are this large at least, but for the last: each is a request of its own, and whoever writes an object may cut it as
/// they like.
const LEAST_CHUNK_BYTES: usize = 1_024;
/// Of one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a body cannot be put or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("`{0}` is not the name of an object in the bucket of the namespace")]
    Reference(String),
    #[error("there is no object `{0}`")]
    Missing(String),
    #[error("the object `{0}` is not what it is said to be: {1}")]
    Damaged(String, &'static str),
    #[error("the body has {bytes} bytes; the limit is {limit}")]
    TooLarge { bytes: u64, limit: usize },
    /// The bucket takes no more.
    #[error("the bucket `{0}` is full")]
    Full(String),
    #[error("there is no bucket `{0}`")]
    NoBucket(String),
    /// It may succeed at another time.
    #[error("the object store does not answer: {0}")]
    Unavailable(String),
}

/// An object that was put, as a message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `<bucket>/<name>`
    pub object: String,
    /// `SHA-256=…`
    pub digest: String,
    pub bytes: usize,
}

impl Reference {
    /// The headers that stand for the body.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        [
            (header::BODY, self.object.clone()),
            (header::BODY_DIGEST, self.digest.clone()),
            (header::BODY_SIZE, self.bytes.to_string()),
        ]
    }
}

/// What an object's record says.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    bucket: String,
    nuid: String,
    size: u64,
    mtime: String,
    chunks: u64,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Options {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_chunk_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Acknowledgement {
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Puts a body into the bucket of a namespace, under a new name.
pub async fn put(client: &Client, namespace: &str, body: &Bytes) -> Result<Reference, BodyError> {
    let bucket =
        subject::body_bucket(namespace).map_err(|error| BodyError::Reference(format!("{namespace}: {error}")))?;
    // Unique, and no part of a subject that has a meaning.
    let nuid = client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned();
    let most = client.server_info().max_payload;
    let chunk = CHUNK_BYTES.min((most / 2).max(LEAST_CHUNK_BYTES));
    let chunks = format!("$O.{bucket}.C.{nuid}");
    let mut count = 0;
    let mut rest = body.clone();
    while !rest.is_empty() {
        let part = rest.split_to(chunk.min(rest.len()));
        store(client, &bucket, chunks.clone(), HeaderMap::new(), part).await?;
        count += 1;
    }
    let digest = digest(body);
    let record = Record {
        name: nuid.clone(),
        bucket: bucket.clone(),
        nuid: nuid.clone(),
        size: body.len() as u64,
        mtime: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
        chunks: count,
        digest: Some(digest.clone()),
        deleted: false,
        options: Some(Options {
            max_chunk_size: Some(chunk as u64),
            link: None,
        }),
    };
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    let record = serde_json::to_vec(&record).map_err(|error| BodyError::Unavailable(error.to_string()))?;
    let name = URL_SAFE.encode(&nuid);
    store(client, &bucket, format!("$O.{bucket}.M.{name}"), headers, record.into()).await?;
    Ok(Reference {
        object: format!("{bucket}/{nuid}"),
        digest,
        bytes: body.len(),
    })
}

async fn store(
    client: &Client,
    bucket: &str,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<(), BodyError> {
    let request = Request::new().headers(headers).payload(payload).timeout(Some(TIMEOUT));
    let reply = client
        .send_request(subject, request)
        .await
        .map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => BodyError::NoBucket(bucket.to_owned()),
            _ => BodyError::Unavailable(error.to_string()),
        })?;
    let answer: Acknowledgement =
        serde_json::from_slice(&reply.payload).map_err(|error| BodyError::Unavailable(error.to_string()))?;
    match answer.error {
        None => Ok(()),
        // Limits of the stream, of the account's storage.
        Some(Refusal {
            err_code: 10_077 | 10_047 | 10_023 | 10_028,
            ..
        }) => Err(BodyError::Full(bucket.to_owned())),
        Some(refusal) => Err(BodyError::Unavailable(refusal.description)),
    }
}

/// Reads the object that a message of this namespace names. `digest` is the message's, if it has one.
pub async fn get(
    client: &Client,
    namespace: &str,
    object: &str,
    digest: Option<&str>,
    limit: usize,
) -> Result<Bytes, BodyError> {
    let bucket = subject::body_bucket(namespace).map_err(|_| BodyError::Reference(shown(object)))?;
    let record = record_subject(&bucket, object)?;
    let found = message(client, &bucket, &serde_json::json!({ "last_by_subj": record })).await?;
    let (_, record) = found.ok_or_else(|| BodyError::Missing(shown(object)))?;
    let damaged = |why| BodyError::Damaged(shown(object), why);
    let record: Record = serde_json::from_slice(&record).map_err(|_| damaged("its record cannot be read"))?;
    if record.deleted {
        return Err(BodyError::Missing(shown(object)));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if record.options.as_ref().is_some_and(|options| options.link.is_some())
        || record.nuid.is_empty()
        || record.nuid.len() > 128
        || !record.nuid.bytes().all(plain)
    {
        return Err(damaged("it is a link, or its record names no chunks"));
    }
    if record.size > limit as u64 {
        return Err(BodyError::TooLarge {
            bytes: record.size,
            limit,
        });
    }
    let size = usize::try_from(record.size).unwrap_or(usize::MAX);
    let chunks = format!("$O.{bucket}.C.{}", record.nuid);
    let mut body = BytesMut::with_capacity(size);
    let mut next = 1;
    let mut left = size / LEAST_CHUNK_BYTES + 1;
    while body.len() < size {
        if left == 0 {
            return Err(damaged("it is cut too small"));
        }
        left -= 1;
        let query = serde_json::json!({ "seq": next, "next_by_subj": chunks });
        let Some((sequence, part)) = message(client, &bucket, &query).await? else {
            return Err(BodyError::Missing(shown(object)));
        };
        if part.is_empty() || body.len() + part.len() > size {
            return Err(damaged("its size is another"));
        }
        body.extend_from_slice(&part);
        next = sequence + 1;
    }
    let body = body.freeze();
    let found = self::digest(&body);
    let differs = |said: &str| said.trim_end_matches('=') != found.trim_end_matches('=');
    if record.digest.as_deref().is_some_and(differs) || digest.is_some_and(differs) {
        return Err(damaged("its digest is another"));
    }
    Ok(body)
}

/// What the record of an object is stored under, in the stream `OBJ_<bucket>`.
///
/// # Errors
/// The reference names no object of this bucket.
pub fn record_subject(bucket: &str, object: &str) -> Result<String, BodyError> {
    let name = object
        .strip_prefix(bucket)
        .and_then(|rest| rest.strip_prefix('/'))
        .filter(|name| !name.is_empty() && name.len() <= 512)
        .ok_or_else(|| BodyError::Reference(shown(object)))?;
    Ok(format!("$O.{bucket}.M.{}", URL_SAFE.encode(name)))
}

/// A stored message of the bucket's stream and its sequence, asked for directly: any replica of the stream answers, and one
/// may be behind the others.
async fn message(client: &Client, bucket: &str, query: &serde_json::Value) -> Result<Option<(u64, Bytes)>, BodyError> {
    let request = Request::new().payload(query.to_string().into()).timeout(Some(TIMEOUT));
    let unavailable = |text: String| BodyError::Unavailable(text);
    let reply = client
        .send_request(format!("$JS.API.DIRECT.GET.OBJ_{bucket}"), request)
        .await
        .map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => BodyError::NoBucket(bucket.to_owned()),
            _ => unavailable(error.to_string()),
        })?;
    match reply.status.map(|status| status.as_u16()) {
        Some(404) => return Ok(None),
        None | Some(200) => {}
        Some(status) => {
            let said = reply.description.unwrap_or_default();
            return Err(unavailable(format!("{status} {said}")));
        }
    }
    let headers = reply.headers.unwrap_or_default();
    let sequence = headers
        .get("Nats-Sequence")
        .and_then(|value| value.as_str().parse().ok());
    match sequence {
        Some(sequence) => Ok(Some((sequence, reply.payload))),
        None => Err(unavailable("a stored message without a sequence".to_owned())),
    }
}

fn digest(body: &[u8]) -> String {
    format!("SHA-256={}", URL_SAFE.encode(Sha256::digest(body)))
}

/// As it may be repeated in an error.
fn shown(object: &str) -> String {
    let short = &object[..object.floor_char_boundary(200)];
    short.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_an_object_of_its_own_bucket() {
        let of = |object: &str| record_subject("KNARR_BODIES_a", object).ok();
        assert_eq!(
            of("KNARR_BODIES_a/crumbs").as_deref(),
            Some("$O.KNARR_BODIES_a.M.Y3J1bWJz")
        );
        assert!(of(&format!("KNARR_BODIES_a/{}", "x".repeat(512))).is_some());
        for other in [
            "",
            "KNARR_BODIES_a",
            "KNARR_BODIES_a/",
            "KNARR_BODIES_ab/crumbs",
            "KNARR_BODIES_b/crumbs",
            "OBJ_KNARR_BODIES_a/crumbs",
            &format!("KNARR_BODIES_a/{}", "x".repeat(513)),
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
