//! The least a NATS client can be: one plain socket, blocking, with frames parsed in place. It costs the client a tenth of
//! what a full library does, on a machine where the client competes with what it measures.
//!
//! Deliberately absent: TLS, signed credentials, reconnection. A lost connection ends the measurement.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const BUFFER_BYTES: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The client of the benchmark is simple; the orchestrator's is not.
    #[error("the benchmark's client cannot use `{0}`: it speaks nats://[user:password@]host[:port] alone")]
    Address(String),
    #[error("NATS at {address} cannot be reached: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("the connection to NATS was lost: {0}")]
    Lost(std::io::Error),
    #[error("NATS closed the connection")]
    Closed,
    #[error("NATS says {0}")]
    Refused(String),
    #[error("NATS sent what is no frame: {0}")]
    Frame(String),
}

/// One thing the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Message {
        subject: &'a [u8],
        /// Empty when there are none.
        headers: &'a [u8],
        payload: &'a [u8],
    },
    Ping,
    Pong,
    /// Greetings and pleasantries.
    Other,
}

/// The reading half, with its buffer.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Address {
    host_port: String,
    user: Option<String>,
    password: Option<String>,
}

fn address(url: &str) -> Result<Address, WireError> {
    let refuse = || WireError::Address(url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned());
    let first = url.split(',').next().unwrap_or_default().trim();
    let rest = match first.split_once("://") {
        Some(("nats", rest)) => rest,
        Some(_) => return Err(refuse()),
        None => first,
    };
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, rest),
    };
    let host = host.trim_end_matches('/');
    if host.is_empty() {
        return Err(refuse());
    }
    let port_named = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
        None => (None, None),
        Some(Ok((user, password))) => (Some(user.to_owned()), Some(password.to_owned())),
        Some(Err(token)) => (None, Some(token.to_owned())),
    };
    Ok(Address {
        host_port: if port_named {
            host.to_owned()
        } else {
            format!("{host}:4222")
        },
        user,
        password,
    })
}

/// Connects, and returns the two halves; the writing one is the bare socket.
pub(crate) fn connect(url: &str) -> Result<(Reader, TcpStream), WireError> {
    let address = address(url)?;
    let failed = |source| WireError::Connect {
        address: address.host_port.clone(),
        source,
    };
    let mut stream = TcpStream::connect(&address.host_port).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(failed)?;
    let mut options = json!({
        "verbose": false, "pedantic": false, "tls_required": false, "headers": true, "no_responders": true,
        "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "name": "knarr bench",
    });
    match (&address.user, &address.password) {
        (Some(user), Some(password)) => {
            options["user"] = json!(user);
            options["pass"] = json!(password);
        }
        (_, Some(token)) => options["auth_token"] = json!(token),
        _ => {}
    }
    stream
        .write_all(format!("CONNECT {options}\r\nPING\r\n").as_bytes())
        .map_err(failed)?;
    let mut reader = Reader {
        stream: stream.try_clone().map_err(failed)?,
        buffer: vec![0; BUFFER_BYTES],
        begin: 0,
        end: 0,
    };
    loop {
        let (greeted, nothing) = match reader.next()? {
            Some(frame) => (frame == Frame::Pong, false),
            None => (false, true),
        };
        if greeted {
            return Ok((reader, stream));
        }
        if nothing && !reader.fill()? {
            return Err(failed(ErrorKind::TimedOut.into()));
        }
    }
}

impl Reader {
    /// How long [`Reader::fill`] waits at most.
    pub(crate) fn patience(&self, limit: Duration) -> Result<(), WireError> {
        self.stream.set_read_timeout(Some(limit)).map_err(WireError::Lost)
    }

    /// Waits for more; `false` when none came in time.
    pub(crate) fn fill(&mut self) -> Result<bool, WireError> {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(WireError::Closed),
            Ok(bytes) => {
                self.end += bytes;
                Ok(true)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(false),
                _ => Err(WireError::Lost(error)),
            },
        }
    }

    /// The next frame that is there in full.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        match parse(&self.buffer[self.begin..self.end])? {
            Some((frame, length)) => {
                self.begin += length;
                Ok(Some(frame))
            }
            None => Ok(None),
        }
    }
}

/// The first frame and its length, if it is there in full.
fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = bytes[..newline].trim_ascii_end();
    let body = newline + 1;
    let broken = || WireError::Frame(String::from_utf8_lossy(line).chars().take(200).collect());
    let mut words = line.split(|byte| *byte == b' ');
    let with_headers = match words.next().unwrap_or_default() {
        b"MSG" => false,
        b"HMSG" => true,
        b"PING" => return Ok(Some((Frame::Ping, body))),
        b"PONG" => return Ok(Some((Frame::Pong, body))),
        b"INFO" | b"+OK" => return Ok(Some((Frame::Other, body))),
        b"-ERR" => {
            return Err(WireError::Refused(
                String::from_utf8_lossy(&line[4..]).trim().to_owned(),
            ));
        }
        _ => return Err(broken()),
    };
    let subject = words.next().ok_or_else(broken)?;
    // Subscription, maybe a reply subject, maybe the headers' length, and the length of it all.
    let rest: [&[u8]; 4] = {
        let mut rest = [&b""[..]; 4];
        let mut count = 0;
        for word in words {
            *rest.get_mut(count).ok_or_else(broken)? = word;
            count += 1;
        }
        rest[..count].rotate_left(count.saturating_sub(2));
        rest
    };
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<usize>().ok();
    let (headers, total) = if with_headers {
        (number(rest[0]).ok_or_else(broken)?, number(rest[1]).ok_or_else(broken)?)
    } else {
        (0, number(rest[1]).ok_or_else(broken)?)
    };
    let end = body + total;
    if headers > total {
        return Err(broken());
    }
    if bytes.len() < end + 2 {
        return Ok(None);
    }
    let frame = Frame::Message {
        subject,
        headers: &bytes[body..body + headers],
        payload: &bytes[body + headers..end],
    };
    Ok(Some((frame, end + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(subject: &'a str, headers: &'a str, payload: &'a str) -> Frame<'a> {
        Frame::Message {
            subject: subject.as_bytes(),
            headers: headers.as_bytes(),
            payload: payload.as_bytes(),
        }
    }

    #[test]
    fn frames_are_read_whole_or_not_at_all() {
        let table = [
            ("MSG a.b 1 3\r\nxyz\r\n", message("a.b", "", "xyz")),
            ("MSG a.b 1 re.ply 0\r\n\r\n", message("a.b", "", "")),
            ("HMSG a 9 4 6\r\nh\r\n\r12\r\n", message("a", "h\r\n\r", "12")),
            ("HMSG a 9 re.ply 2 2\r\nhh\r\n", message("a", "hh", "")),
            ("PING\r\n", Frame::Ping),
            ("PONG\r\n", Frame::Pong),
            ("INFO {\"a\":1}\r\n", Frame::Other),
        ];
        for (text, frame) in table {
            let more = format!("{text}MSG");
            assert_eq!(parse(more.as_bytes()).unwrap(), Some((frame, text.len())), "{text:?}");
            for cut in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..cut]).unwrap(), None, "{text:?} cut at {cut}");
            }
        }
        for bad in [
            "HELLO\r\n",
            "MSG a\r\n",
            "MSG a 1 x\r\n",
            "HMSG a 1 9 3\r\n",
            "MSG a b c d e f\r\n",
        ] {
            assert!(matches!(parse(bad.as_bytes()), Err(WireError::Frame(_))), "{bad:?}");
        }
        let refused = parse(b"-ERR 'Authorization Violation'\r\n");
        assert_eq!(refused.unwrap_err().to_string(), "NATS says 'Authorization Violation'");
    }

    #[test]
    fn addresses_are_read_or_refused_without_their_secrets() {
        let plain = |url| {
            address(url)
                .map(|address| address.host_port)
                .map_err(|error| error.to_string())
        };
        assert_eq!(plain("nats://127.0.0.1:5000").unwrap(), "127.0.0.1:5000");
        assert_eq!(plain("nats://host/").unwrap(), "host:4222");
        assert_eq!(plain("host:1,other:2").unwrap(), "host:1");
        assert_eq!(plain("nats://[::1]").unwrap(), "[::1]:4222");
        let login = address("nats://me:se@cret@host").unwrap();
        assert_eq!(
            (login.user.as_deref(), login.password.as_deref()),
            (Some("me"), Some("se@cret"))
        );
        assert_eq!(address("nats://token@host").unwrap().password.as_deref(), Some("token"));
        let refused = plain("tls://me:secret@host").unwrap_err();
        assert!(refused.contains("`host`") && !refused.contains("secret"), "{refused}");
        assert!(plain("nats://").is_err());
    }
}
