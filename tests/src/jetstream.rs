//! JetStream as any client sees it: requests to its API, and dead letters.

use std::time::Duration;

use async_nats::Client;
use async_nats::client::Request;
use serde_json::{Value, json};

/// One request to `$JS.API.<call>`; `None` if there was no answer.
pub async fn api(client: &Client, call: &str, body: &Value) -> Option<Value> {
    let payload = if body.is_null() {
        bytes::Bytes::new()
    } else {
        serde_json::to_vec(body).unwrap().into()
    };
    let request = Request::new().payload(payload).timeout(Some(Duration::from_secs(5)));
    let reply = client.send_request(format!("$JS.API.{call}"), request).await.ok()?;
    serde_json::from_slice(&reply.payload).ok()
}

/// The messages a stream holds now; `None` if it is not there.
pub async fn messages(client: &Client, stream: &str) -> Option<u64> {
    let info = api(client, &format!("STREAM.INFO.{stream}"), &Value::Null).await?;
    info["state"]["messages"].as_u64()
}

/// Changes single settings of a stream.
pub async fn reconfigure(client: &Client, stream: &str, changes: &[(&str, Value)]) {
    let info = api(client, &format!("STREAM.INFO.{stream}"), &Value::Null)
        .await
        .unwrap();
    let mut config = info["config"].clone();
    for (name, value) in changes {
        config[*name] = value.clone();
    }
    let answer = api(client, &format!("STREAM.UPDATE.{stream}"), &config).await.unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
}

/// A message that a stream holds.
#[derive(Debug, Clone)]
pub struct Stored {
    pub subject: String,
    pub headers: async_nats::HeaderMap,
    pub body: Vec<u8>,
}

impl Stored {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.as_str())
    }
}

/// All dead letters there are now, oldest first.
pub async fn dead_letters(client: &Client) -> Vec<Stored> {
    stored(client, "KNARR_DLQ", "knarr.dlq.>").await
}

/// What a stream holds now of a subject, oldest first.
pub async fn stored(client: &Client, stream: &str, subject: &str) -> Vec<Stored> {
    let mut found = Vec::new();
    let mut next = 1_u64;
    loop {
        let query = json!({ "seq": next, "next_by_subj": subject });
        let Some(answer) = api(client, &format!("STREAM.MSG.GET.{stream}"), &query).await else {
            return found;
        };
        let Some(message) = answer.get("message") else {
            return found;
        };
        next = message["seq"].as_u64().unwrap() + 1;
        found.push(Stored {
            subject: message["subject"].as_str().unwrap().to_owned(),
            headers: parse_headers(&decode(message["hdrs"].as_str().unwrap_or_default())),
            body: decode(message["data"].as_str().unwrap_or_default()),
        });
    }
}

fn parse_headers(raw: &[u8]) -> async_nats::HeaderMap {
    let mut headers = async_nats::HeaderMap::new();
    for line in String::from_utf8_lossy(raw).split("\r\n").skip(1) {
        if let Some((name, value)) = line.split_once(':') {
            headers.append(name, value.trim());
        }
    }
    headers
}

/// Base64, the standard alphabet.
fn decode(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter_map(|byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for digit in digits {
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xFF) as u8);
        }
    }
    out
}
