//! Writes starts: frames that differ in a number alone.

use std::time::{SystemTime, UNIX_EPOCH};

use super::scenario::Scenario;

/// The frames of one measurement, all but the number.
#[derive(Debug)]
pub(crate) struct Starts {
    /// Up to the number of the workflow id.
    publish: Vec<u8>,
    /// From there to the number of the acknowledgement's inbox.
    reply: Vec<u8>,
    /// Up to the number of the answer's inbox.
    headers: Vec<u8>,
    body: Vec<u8>,
}

/// What a message that came back is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// JetStream's acknowledgement of a start.
    Stored(u64),
    Answer(u64),
}

/// Unlikely to have been used before; short, because it is in every message.
pub(crate) fn new_nonce() -> String {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    // Eighteen minutes of nanoseconds, told apart by the process.
    format!("{:08x}{:010x}", std::process::id(), nanos & 0xff_ffff_ffff)
}

/// Workflow ids are this and a number.
pub(crate) fn workflow_id_prefix(nonce: &str) -> String {
    format!("bench-{nonce}-")
}

fn inbox(nonce: &str) -> String {
    format!("_INBOX.bench{nonce}.")
}

/// What comes back, comes here.
pub(crate) fn inbox_wildcard(nonce: &str) -> String {
    format!("{}>", inbox(nonce))
}

impl Starts {
    /// `namespace` as a subject token.
    pub(crate) fn new(scenario: Scenario, namespace: &str, nonce: &str) -> Self {
        let (id, inbox) = (workflow_id_prefix(nonce), inbox(nonce));
        Self {
            publish: format!("HPUB knarr.run.{namespace}.{id}").into(),
            reply: format!(".start.{} {inbox}p.", scenario.workflow()).into(),
            headers: format!("NATS/1.0\r\nKnarr-Reply-On: closed\r\nKnarr-Reply-To: {inbox}a.").into(),
            body: scenario.input(),
        }
    }

    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        const BLANK: &[u8] = b" ";
        const END: &[u8] = b"\r\n";
        let mut digits = Digits::default();
        let number = digits.of(number);
        let headers = self.headers.len() + number.len() + 4;
        let mut digits = Digits::default();
        let headers = (headers, digits.of(headers as u64));
        let mut digits = Digits::default();
        let total = digits.of((headers.0 + self.body.len()) as u64);
        let parts: [&[u8]; 15] = [
            &self.publish,
            number,
            &self.reply,
            number,
            BLANK,
            headers.1,
            BLANK,
            total,
            END,
            &self.headers,
            number,
            END,
            END,
            &self.body,
            END,
        ];
        for part in parts {
            out.extend_from_slice(part);
        }
    }

    /// Reads the subject of what came back.
    pub(crate) fn read_back(nonce: &str, subject: &[u8]) -> Option<Back> {
        // The inbox's fixed length: `_INBOX.bench<nonce>.`
        let rest = subject.get("_INBOX.bench".len() + nonce.len() + 1..)?;
        let (kind, number) = (rest.get(..2)?, rest.get(2..)?);
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        match kind {
            b"p." => Some(Back::Stored(number)),
            b"a." => Some(Back::Answer(number)),
            _ => None,
        }
    }
}

/// Decimal digits without an allocation.
#[derive(Default)]
struct Digits([u8; 20]);

impl Digits {
    fn of(&mut self, mut number: u64) -> &[u8] {
        let mut at = self.0.len();
        loop {
            at -= 1;
            // A remainder below ten.
            self.0[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.0[at..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_frame_whose_lengths_are_right() {
        let starts = Starts::new(Scenario::Order, "default", "abc");
        for number in [0, 7, 10, 1_234_567] {
            let mut out = Vec::new();
            starts.write(number, &mut out);
            let text = String::from_utf8(out).unwrap();
            let (line, rest) = text.split_once("\r\n").unwrap();
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words[1], format!("knarr.run.default.bench-abc-{number}.start.order"));
            assert_eq!(words[2], format!("_INBOX.benchabc.p.{number}"));
            let (headers, total): (usize, usize) = (words[3].parse().unwrap(), words[4].parse().unwrap());
            assert_eq!(rest.len(), total + 2);
            assert!(rest[..headers].ends_with(&format!("Knarr-Reply-To: _INBOX.benchabc.a.{number}\r\n\r\n")));
            assert_eq!(total - headers, 500);
            assert_eq!(
                Starts::read_back("abc", words[2].as_bytes()),
                Some(Back::Stored(number))
            );
        }
        assert_eq!(Starts::read_back("abc", b"_INBOX.benchabc.a.9"), Some(Back::Answer(9)));
        assert_eq!(Starts::read_back("abc", b"_INBOX.benchabc.x.9"), None);
        assert_eq!(Starts::read_back("abc", b"_INBOX"), None);
        assert_ne!(new_nonce(), new_nonce());
    }
}
