//! The headers of a message as the log keeps them, byte by byte.
//!
//! The server stores any block of bytes for headers; the client ends its connection over one that it cannot read. So a
//! message that may have done so is fetched by itself, its block as data, and read here: by the client's rules, but what
//! breaks them is said instead.

use std::str::FromStr as _;

use async_nats::{HeaderName, StatusCode};
use knarr_schemas::header;

use super::header_map;
use crate::bus::Headers;

/// Of a block that is kept to be looked at, in bytes once escaped.
const MOST_KEPT: usize = 4_096;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeaderBlock {
    /// What can be read; with a flaw also the block itself, escaped, as `Knarr-Original-Headers`.
    pub(super) headers: Headers,
    /// What the client would break over, if anything.
    pub(super) flaw: Option<String>,
}

pub(super) fn read(block: &[u8]) -> HeaderBlock {
    let mut headers = Headers::new();
    let mut flaw = None;
    // The first one is said.
    let mut note = |problem: String| {
        flaw.get_or_insert(problem);
    };
    let mut lines = block
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    if !block.is_empty() && !is_version(first) {
        note(format!(
            "the headers begin with `{}` instead of `NATS/1.0`",
            escaped(first, 60)
        ));
    }
    for (line, number) in lines.zip(2..) {
        if line.is_empty() {
            continue;
        }
        let Ok(text) = std::str::from_utf8(line) else {
            note(format!("line {number} of the headers is not UTF-8"));
            continue;
        };
        if text.starts_with(char::is_whitespace)
            && let Some((_, value)) = headers.last_mut()
        {
            value.push_str(text.trim_end());
            continue;
        }
        let header = text
            .split_once(':')
            .filter(|(name, _)| HeaderName::from_str(name).is_ok());
        match header {
            Some((name, value)) => headers.push((header_map::shared(name), value.trim().to_owned())),
            None => note(format!("line {number} of the headers is not a header")),
        }
    }
    if flaw.is_some() {
        headers.retain(|(name, _)| &**name != header::ORIGINAL_HEADERS);
        headers.push((header_map::shared(header::ORIGINAL_HEADERS), escaped(block, MOST_KEPT)));
    }
    HeaderBlock { headers, flaw }
}

/// `NATS/1.0`, and perhaps a status as the server's own messages have one.
fn is_version(line: &[u8]) -> bool {
    let suffix = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix("NATS/1.0"));
    suffix.is_some_and(|suffix| {
        let status = suffix.trim().split(' ').next().unwrap_or_default();
        status.is_empty() || status.parse::<StatusCode>().is_ok()
    })
}

fn escaped(bytes: &[u8], limit: usize) -> String {
    let mut text = bytes.escape_ascii().to_string();
    text.truncate(limit);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_reads_is_read_alike() {
        let read = read(b"NATS/1.0\r\nKnarr-Version: 2\r\nX:a\r\n b\r\n\r\n");
        assert_eq!(read.flaw, None);
        let expected = [("Knarr-Version", "2"), ("X", "a b")].map(|(name, value)| (name.into(), value.to_owned()));
        assert_eq!(read.headers, expected);
        for fine in [&b""[..], b"NATS/1.0\r\n\r\n", b"NATS/1.0 503\r\n\r\n"] {
            assert_eq!(super::read(fine).flaw, None, "{}", fine.escape_ascii());
        }
    }

    #[test]
    fn what_the_client_breaks_over_is_said_and_kept() {
        for (block, flaw) in [
            (&b"NATS/1.0\r\nX: caf\xe9\r\nY: 1\r\n\r\n"[..], "not UTF-8"),
            (b"NATS/1.0\r\nno colon\r\nY: 1\r\n\r\n", "not a header"),
            ("NATS/1.0\r\nGrüße: 1\r\nY: 1\r\n\r\n".as_bytes(), "not a header"),
            (b"NATS/1.0\r\nA b: 1\r\nY: 1\r\n\r\n", "not a header"),
            (b"NATS/1.0 many\r\nY: 1\r\n\r\n", "begin with"),
            (b"HTTP/1.1\r\nY: 1\r\n\r\n", "begin with"),
        ] {
            let read = read(block);
            assert!(read.flaw.as_deref().is_some_and(|text| text.contains(flaw)), "{read:?}");
            assert_eq!(crate::bus::header(&read.headers, "Y"), Some("1"));
            let kept = crate::bus::header(&read.headers, header::ORIGINAL_HEADERS).unwrap();
            assert_eq!(kept, block.escape_ascii().to_string());
            header_map::to_client(read.headers).unwrap();
        }
    }

    #[test]
    fn a_block_is_kept_up_to_a_size() {
        let block = [b"NATS/1.0\r\n".as_slice(), &[0xff; 2_000]].concat();
        let kept = |block: &[u8]| {
            let read = read(block);
            crate::bus::header(&read.headers, header::ORIGINAL_HEADERS)
                .unwrap()
                .len()
        };
        assert_eq!(kept(&block), MOST_KEPT);
        assert_eq!(kept(&block[..1_000]), 12 + 4 * 990);
    }
}
