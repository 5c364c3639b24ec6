//! The client: starts sagas, takes the answers, measures the time between.
//!
//! Blocking, on a plain thread: a start is appended to a buffer while what came is read, and goes out in one write.
//! In an open loop a second thread keeps the pace, because the first may not sleep while it reads.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::scenario::Scenario;
use super::start::{Back, Starts, inbox_wildcard};
use super::wire::{Frame, Reader, WireError, connect};

/// Longest pause without looking at the clock.
const LOOK: Duration = Duration::from_millis(20);
/// A refused start is tried again by another one, this much later.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// The longest latency that is told apart from longer ones.
const MAX_LATENCY_US: u64 = 600_000_000;
const MAX_SAMPLES: usize = 5;
/// An answer says stage and status at its beginning.
const ANSWER_HEAD: usize = 400;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// As many sagas at once; the next one starts when one ends.
    InFlight(u32),
    /// As many starts a second, whatever becomes of them.
    Rate(f64),
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) load: Load,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// Longest silence, once no more sagas are started, before those that did not answer are lost.
    pub(crate) drain: Duration,
    /// As a subject token.
    pub(crate) namespace: String,
    pub(crate) nonce: String,
}

/// What others may see while the client works, and how they stop it.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) started: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// What the client has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) started: u64,
    /// In microseconds; closed loop: of sagas that ended within the window, open loop: of those due within it.
    pub(crate) latency_us: Histogram<u64>,
    /// Starts that JetStream acknowledged and that were never answered.
    pub(crate) lost: u64,
    /// Starts of which nothing is known.
    pub(crate) unacknowledged: u64,
    /// Starts that JetStream refused: they never were.
    pub(crate) refused: u64,
    pub(crate) wrong_ends: u64,
    /// Sagas without an expected end; they cannot be asked to have run everything.
    pub(crate) unended: BTreeSet<u64>,
    pub(crate) samples: Vec<String>,
}

/// Starts sagas until the time is over, then waits for those in flight. Returns early when told to stop.
pub(crate) fn drive(url: &str, plan: &Plan, began: Instant, live: &Arc<Live>) -> Result<Seen, WireError> {
    let (reader, mut writer) = connect(url)?;
    let subscribe = format!("SUB {} 1\r\n", inbox_wildcard(&plan.nonce));
    writer.write_all(subscribe.as_bytes()).map_err(WireError::Lost)?;
    reader.patience(LOOK)?;
    thread::sleep(began.saturating_duration_since(Instant::now()));
    let starts = Arc::new(Starts::new(plan.scenario, &plan.namespace, &plan.nonce));
    let writer = Arc::new(Mutex::new(writer));
    let pacer = match plan.load {
        Load::InFlight(_) => None,
        Load::Rate(rate) => {
            let pacer = Pacer {
                rate,
                began,
                end: began + plan.warmup + plan.duration,
                starts: Arc::clone(&starts),
                writer: Arc::clone(&writer),
                live: Arc::clone(live),
            };
            Some(thread::spawn(move || pacer.keep()))
        }
    };
    let client = Client {
        plan,
        began,
        live,
        starts: &starts,
        sagas: Vec::new(),
        open: 0,
        last_word: began,
        refill_after: began,
        out: Vec::with_capacity(64 * 1024),
        seen: Seen::new(),
    };
    let seen = client.work(reader, &writer);
    if seen.is_err() {
        live.stop.store(true, Ordering::Relaxed);
    }
    if let Some(pacer) = pacer {
        // It cannot panic: it only writes and sleeps.
        let _ = pacer.join();
    }
    seen
}

#[derive(Debug, Clone, Copy, Default)]
struct Saga {
    /// Microseconds after the beginning.
    sent: u64,
    stored: bool,
    refused: bool,
    answered: bool,
    ended_well: bool,
}

struct Client<'a> {
    plan: &'a Plan,
    began: Instant,
    live: &'a Live,
    starts: &'a Starts,
    sagas: Vec<Saga>,
    /// Started and neither refused nor answered.
    open: u64,
    last_word: Instant,
    refill_after: Instant,
    out: Vec<u8>,
    seen: Seen,
}

impl Client<'_> {
    fn work(mut self, mut reader: Reader, writer: &Mutex<TcpStream>) -> Result<Seen, WireError> {
        let end = self.began + self.plan.warmup + self.plan.duration;
        loop {
            // One reading of the clock for all that came in one read: it is the time at which it came.
            let now = Instant::now();
            loop {
                match reader.next()? {
                    None => break,
                    Some(Frame::Ping) => self.out.extend_from_slice(b"PONG\r\n"),
                    Some(Frame::Message {
                        subject,
                        headers,
                        payload,
                    }) => {
                        self.take(subject, headers, payload, now);
                    }
                    Some(Frame::Pong | Frame::Other) => {}
                }
            }
            let over = now >= end;
            match self.plan.load {
                Load::InFlight(limit) if !over && now >= self.refill_after => self.refill(u64::from(limit), now),
                Load::InFlight(_) => {}
                Load::Rate(_) => self.learn_of_starts(now),
            }
            self.flush(writer)?;
            let silent = now.duration_since(self.last_word.max(end.min(now))) > self.plan.drain;
            let done = over && self.all_started(end) && (self.open == 0 || silent);
            if self.live.stop.load(Ordering::Relaxed) || done {
                return Ok(self.finish(now));
            }
            reader.fill()?;
        }
    }

    fn flush(&mut self, writer: &Mutex<TcpStream>) -> Result<(), WireError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = lock(writer).write_all(&self.out);
        self.out.clear();
        written.map_err(WireError::Lost)
    }

    fn refill(&mut self, limit: u64, now: Instant) {
        while self.open < limit {
            let number = self.sagas.len() as u64;
            self.starts.write(number, &mut self.out);
            self.sagas.push(Saga {
                sent: micros(now - self.began),
                ..Saga::default()
            });
            self.open += 1;
        }
        self.live.started.store(self.sagas.len() as u64, Ordering::Relaxed);
    }

    /// A pacer that the machine held up may still have starts to send that were due before the end.
    fn all_started(&self, end: Instant) -> bool {
        match self.plan.load {
            Load::InFlight(_) => true,
            Load::Rate(rate) => self.began + due(rate, self.sagas.len() as u64) >= end,
        }
    }

    /// The pacer has started more.
    fn learn_of_starts(&mut self, now: Instant) {
        let Load::Rate(rate) = self.plan.load else { return };
        let started = self.live.started.load(Ordering::Acquire);
        while (self.sagas.len() as u64) < started {
            let due = due(rate, self.sagas.len() as u64);
            self.sagas.push(Saga {
                sent: micros(due),
                ..Saga::default()
            });
            self.open += 1;
            self.last_word = now;
        }
    }

    fn take(&mut self, subject: &[u8], headers: &[u8], payload: &[u8], now: Instant) {
        let (number, answer) = match Starts::read_back(&self.plan.nonce, subject) {
            Some(Back::Stored(number)) => (number, false),
            Some(Back::Answer(number)) => (number, true),
            None => return,
        };
        self.learn_of_starts(now);
        let Some(saga) = usize::try_from(number)
            .ok()
            .and_then(|number| self.sagas.get_mut(number))
        else {
            return;
        };
        if !answer {
            if is_stored(headers, payload) {
                saga.stored = true;
            } else if !saga.refused && !saga.answered {
                saga.refused = true;
                self.open -= 1;
                self.seen.refused += 1;
                self.last_word = now;
                self.refill_after = now + REFUSED_PAUSE;
                let said = if payload.is_empty() { headers } else { payload };
                self.seen.sample("start", number, "was refused", said);
            }
            return;
        }
        let head = &payload[..payload.len().min(ANSWER_HEAD)];
        let end = End::of(head, self.plan.scenario.end());
        if saga.answered || saga.refused || end == End::NotYet {
            return;
        }
        saga.answered = true;
        self.open -= 1;
        self.last_word = now;
        if end == End::Wrong {
            self.seen.wrong_ends += 1;
            self.seen.sample("saga", number, "ended wrongly", payload);
            return;
        }
        saga.ended_well = true;
        let at = micros(now - self.began);
        let sent = saga.sent;
        let window = micros(self.plan.warmup)..micros(self.plan.warmup + self.plan.duration);
        let counts = match self.plan.load {
            Load::InFlight(_) => window.contains(&at),
            Load::Rate(_) => window.contains(&sent),
        };
        if counts {
            self.seen.latency_us.saturating_record(at.saturating_sub(sent).max(1));
        }
        self.live.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(mut self, now: Instant) -> Seen {
        self.learn_of_starts(now);
        self.seen.started = self.sagas.len() as u64;
        for (number, saga) in (0..).zip(&self.sagas) {
            if !saga.ended_well {
                self.seen.unended.insert(number);
            }
            if !saga.answered && !saga.refused {
                if saga.stored {
                    self.seen.lost += 1;
                } else {
                    self.seen.unacknowledged += 1;
                }
            }
        }
        self.seen
    }
}

impl Seen {
    fn new() -> Self {
        // Bounds and precision are constants that the library takes.
        #[expect(clippy::expect_used, reason = "constant arguments within the documented range")]
        let latency_us = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("valid bounds");
        Self {
            started: 0,
            latency_us,
            lost: 0,
            unacknowledged: 0,
            refused: 0,
            wrong_ends: 0,
            unended: BTreeSet::new(),
            samples: Vec::new(),
        }
    }

    fn sample(&mut self, what: &str, number: u64, happened: &str, said: &[u8]) {
        if self.samples.len() < MAX_SAMPLES {
            let said: String = String::from_utf8_lossy(said).chars().take(300).collect();
            self.samples
                .push(format!("{what} {number} {happened}: {}", said.trim()));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Right,
    Wrong,
    /// Another answer than the one that was asked for.
    NotYet,
}

impl End {
    /// Reads as much of an answer as has to be read. Workflow and run id stand before stage and status and hold no quotes.
    fn of(head: &[u8], expected: &str) -> Self {
        let head = match std::str::from_utf8(head) {
            Ok(head) => head,
            // Cut within a character.
            Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
        };
        let field = |name: &str| {
            let at = head.find(name)? + name.len();
            head[at..].split_once('"').map(|(value, _)| value)
        };
        match field(r#""stage":""#) {
            Some("started" | "existing" | "accepted") => Self::NotYet,
            Some("closed") if field(r#""status":""#) == Some(expected) => Self::Right,
            _ => Self::Wrong,
        }
    }
}

/// Whether JetStream says that it has stored the message; no responders and errors say that it has not.
fn is_stored(headers: &[u8], payload: &[u8]) -> bool {
    headers.is_empty() && payload.starts_with(b"{") && !payload.windows(8).any(|part| part == br#""error":"#)
}

struct Pacer {
    rate: f64,
    began: Instant,
    end: Instant,
    starts: Arc<Starts>,
    writer: Arc<Mutex<TcpStream>>,
    live: Arc<Live>,
}

impl Pacer {
    fn keep(self) {
        let mut next = 0;
        let mut out = Vec::with_capacity(64 * 1024);
        loop {
            let now = Instant::now();
            loop {
                let at = self.began + due(self.rate, next);
                if at > now || at >= self.end {
                    break;
                }
                self.starts.write(next, &mut out);
                next += 1;
            }
            if !out.is_empty() {
                // Before the write: the answer must not come to somebody who does not know of the start.
                self.live.started.store(next, Ordering::Release);
                if lock(&self.writer).write_all(&out).is_err() {
                    // The reading half says what is wrong.
                    return;
                }
                out.clear();
            }
            let at = self.began + due(self.rate, next);
            if at >= self.end || self.live.stop.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(at.saturating_duration_since(Instant::now()).min(LOOK));
        }
    }
}

/// When a start of an open loop has to go out, from the beginning on.
fn due(rate: f64, number: u64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock(writer: &Mutex<TcpStream>) -> std::sync::MutexGuard<'_, TcpStream> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_from_the_head_of_an_answer() {
        let head = r#"{"workflow_id":"bench-1-1","run_id":"01890a5d-ac96-774b-bcce-b302099a8057","#;
        let table = [
            (
                r#""stage":"closed","status":"completed","output":{"status":"x"}}"#,
                End::Right,
            ),
            (r#""stage":"closed","status":"compensated"}"#, End::Wrong),
            (r#""stage":"started","status":"running"}"#, End::NotYet),
            (r#""stage":"refused","error":{"code":"KN0207"}}"#, End::Wrong),
            (r#""stage":"closed","status":"compl"#, End::Wrong),
            ("", End::Wrong),
        ];
        for (rest, end) in table {
            assert_eq!(End::of(format!("{head}{rest}").as_bytes(), "completed"), end, "{rest}");
        }
    }

    #[test]
    fn only_a_plain_acknowledgement_says_stored() {
        assert!(is_stored(b"", br#"{"stream":"KNARR_IN", "seq":1}"#));
        assert!(!is_stored(
            b"",
            br#"{"error":{"code":503,"err_code":10077},"stream":"KNARR_IN","seq":0}"#
        ));
        assert!(!is_stored(b"NATS/1.0 503\r\n\r\n", b""));
        assert!(!is_stored(b"", b""));
    }

    /// A server that stores and ends every saga at once, except the numbers that `misbehave` picks out.
    fn server(answer: impl Fn(u64) -> Vec<(char, &'static str)> + Send + 'static) -> String {
        use std::io::{BufRead, BufReader, Read};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"INFO {}\r\n").unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 0 {
                let words: Vec<_> = line.trim_end().split(' ').collect();
                let mut out = String::new();
                match words[0] {
                    "PING" => out.push_str("PONG\r\n"),
                    "HPUB" => {
                        let mut body = vec![0; words[4].parse::<usize>().unwrap() + 2];
                        reader.read_exact(&mut body).unwrap();
                        let (inbox, number) = words[2].rsplit_once(".p.").unwrap();
                        for (kind, text) in answer(number.parse().unwrap()) {
                            out.push_str(&format!("MSG {inbox}.{kind}.{number} 1 {}\r\n{text}\r\n", text.len()));
                        }
                    }
                    _ => {}
                }
                stream.write_all(out.as_bytes()).unwrap();
                line.clear();
            }
        });
        url
    }

    const STORED: (char, &str) = ('p', r#"{"stream":"KNARR_IN","seq":1}"#);
    const DONE: (char, &str) = ('a', r#"{"workflow_id":"w","stage":"closed","status":"completed"}"#);
    const UNDONE: (char, &str) = ('a', r#"{"workflow_id":"w","stage":"closed","status":"compensated"}"#);
    const FULL: (char, &str) = ('p', r#"{"error":{"err_code":10077}}"#);

    fn plan(load: Load) -> Plan {
        Plan {
            scenario: Scenario::Order,
            load,
            warmup: Duration::ZERO,
            duration: Duration::from_millis(100),
            drain: Duration::from_millis(30),
            namespace: "default".to_owned(),
            nonce: "n".to_owned(),
        }
    }

    #[test]
    fn what_goes_wrong_is_counted_apart() {
        let url = server(|number| match number {
            1 => vec![STORED],
            2 => vec![],
            3 => vec![STORED, UNDONE],
            4 => vec![FULL],
            _ => vec![STORED, DONE],
        });
        let live = Arc::new(Live::default());
        let seen = drive(&url, &plan(Load::InFlight(8)), Instant::now(), &live).unwrap();
        assert_eq!(
            (seen.lost, seen.unacknowledged, seen.wrong_ends, seen.refused),
            (1, 1, 1, 1)
        );
        assert_eq!(seen.unended, BTreeSet::from([1, 2, 3, 4]));
        assert!(seen.started > 8, "{}", seen.started);
        assert_eq!(live.ended.load(Ordering::Relaxed), seen.started - 4);
        assert_eq!(seen.samples.len(), 2, "{:?}", seen.samples);
    }

    #[test]
    fn an_open_loop_starts_what_is_due_whatever_is_answered() {
        let drive_for = |drain, url: &str| {
            let plan = Plan {
                drain,
                ..plan(Load::Rate(500.0))
            };
            drive(url, &plan, Instant::now(), &Arc::new(Live::default())).unwrap()
        };
        // It waits in vain for all of them.
        let seen = drive_for(Duration::from_secs(2), &server(|_| vec![STORED]));
        assert_eq!((seen.started, seen.lost), (50, 50));
        // It waits for none that is answered.
        let seen = drive_for(Duration::from_secs(3_600), &server(|_| vec![STORED, DONE]));
        assert_eq!((seen.latency_us.len(), seen.lost), (50, 0));
    }

    #[test]
    fn a_pacer_that_was_held_up_still_starts_all_that_was_due() {
        let url = server(|_| vec![STORED, DONE]);
        // The whole window lies in the past before the first start can go out.
        let began = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let plan = Plan {
            drain: Duration::from_secs(3_600),
            ..plan(Load::Rate(500.0))
        };
        let seen = drive(&url, &plan, began, &Arc::new(Live::default())).unwrap();
        assert_eq!((seen.started, seen.lost), (50, 0));
    }

    #[test]
    fn a_server_that_goes_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"INFO {}\r\nPONG\r\n").unwrap();
        });
        let seen = drive(
            &url,
            &plan(Load::InFlight(1)),
            Instant::now(),
            &Arc::new(Live::default()),
        );
        assert!(matches!(seen, Err(WireError::Closed | WireError::Lost(_))), "{seen:?}");
    }
}
