//! Spans of runs and their attempts, made when they have ended.
//!
//! A run outlives any process, so nothing is kept open for it: its ids are functions of the run, and a span is sent when the
//! transition that ends it is committed. A takeover continues the same trace, and what it sends again has the same ids.
//!
//! | span | id | parent | from – to |
//! |---|---|---|---|
//! | run | of the run id | that of the start's `traceparent`, if it had one | start – close |
//! | attempt | of run id and task number | the run's | task opened – its outcome |
//!
//! The trace is that of the start, or else has the run id as its id, so that whoever knows a run can find its trace. A
//! task's `traceparent` names its attempt: what the worker adds lies below it.
//!
//! **Invariant:** a start that was not sampled stays unsampled: nothing is sent for it, and its `traceparent` goes on as it came.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use knarr_core::ids::{RunId, TaskNo};
use knarr_core::time::Timestamp;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks, SpanProcessor};

/// Of what `knarr` sends, as OpenTelemetry calls it.
const SCOPE: &str = "knarr";

/// The trace a run belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTrace {
    trace: TraceId,
    run: SpanId,
    /// `SpanId::INVALID` where the run is the root.
    parent: SpanId,
    sampled: bool,
}

impl RunTrace {
    /// `traceparent` is what the start said; one that cannot be read counts as none.
    pub fn new(run_id: RunId, traceparent: Option<&str>) -> Self {
        let bytes = run_id.0.into_bytes();
        // The first half of a UUIDv7 is mostly time.
        let [.., a, b, c, d, e, f, g, h] = bytes;
        let run = SpanId::from_bytes([a, b, c, d, e, f, g, h]);
        let context = traceparent.map_or(SpanContext::NONE, super::trace::parse);
        match context.is_valid() {
            true => Self {
                trace: context.trace_id(),
                run,
                parent: context.span_id(),
                sampled: context.is_sampled(),
            },
            false => Self {
                trace: TraceId::from_bytes(bytes),
                run,
                parent: SpanId::INVALID,
                sampled: true,
            },
        }
    }

    /// What a task says of its attempt; `None` where the start's own words go on.
    pub fn traceparent(&self, task: TaskNo) -> Option<String> {
        let attempt = self.attempt(task);
        self.sampled.then(|| format!("00-{}-{attempt}-01", self.trace))
    }

    fn attempt(&self, task: TaskNo) -> SpanId {
        // An odd factor: different tasks of a run have different spans, and none that of the run.
        let mixed = u64::from_be_bytes(self.run.to_bytes()) ^ u64::from(task.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        SpanId::from_bytes(mixed.to_be_bytes())
    }
}

/// Whose span it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Run,
    Attempt(TaskNo),
}

/// Something of a run that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub trace: RunTrace,
    pub whose: Whose,
    pub name: Cow<'static, str>,
    pub from: Timestamp,
    pub to: Timestamp,
    pub attributes: Vec<(&'static str, String)>,
    /// Why it did not end well.
    pub error: Option<String>,
}

impl Ended {
    fn into_data(self) -> SpanData {
        let RunTrace { trace, run, parent, .. } = self.trace;
        let (id, above, kind) = match self.whose {
            Whose::Run => (run, parent, SpanKind::Server),
            Whose::Attempt(task) => (self.trace.attempt(task), run, SpanKind::Client),
        };
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: above,
            parent_span_is_remote: self.whose == Whose::Run && above != SpanId::INVALID,
            span_kind: kind,
            name: self.name,
            start_time: system_time(self.from),
            end_time: system_time(self.to.max(self.from)),
            attributes: self
                .attributes
                .into_iter()
                .map(|(key, value)| KeyValue::new(key, value))
                .collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match self.error {
                None => Status::Unset,
                Some(reason) => Status::error(reason),
            },
            instrumentation_scope: InstrumentationScope::builder(SCOPE)
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}

/// Where ended spans go. Cheap to clone; sending is somebody else's task, and what it cannot keep up with is dropped there.
#[derive(Debug, Clone)]
pub struct SpanSink(Arc<dyn SpanProcessor>);

impl SpanSink {
    pub fn new(processor: Arc<dyn SpanProcessor>) -> Self {
        Self(processor)
    }

    pub fn send(&self, ended: Ended) {
        if ended.trace.sampled {
            self.0.on_end(ended.into_data());
        }
    }
}

static INSTALLED: OnceLock<SpanSink> = OnceLock::new();

/// Once in the life of the process; a later one changes nothing.
pub(super) fn install(sink: SpanSink) {
    let _ = INSTALLED.set(sink);
}

/// That of the process, where spans are exported at all.
pub fn installed() -> Option<SpanSink> {
    INSTALLED.get().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));

    #[test]
    fn a_run_without_a_trace_has_its_own_id_as_one() {
        let trace = RunTrace::new(RUN, None);
        assert_eq!(
            trace.traceparent(TaskNo(1)).as_deref(),
            Some("00-01900000000070008000000000000001-1e3779b97f4a7c14-01")
        );
        assert_ne!(trace.attempt(TaskNo(1)), trace.attempt(TaskNo(2)));
        assert_ne!(trace.attempt(TaskNo(1)), trace.run);
        assert_eq!(trace, RunTrace::new(RUN, Some("nonsense")));
    }

    #[test]
    fn a_start_that_has_a_trace_is_its_parent() {
        let trace = RunTrace::new(RUN, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert_eq!(trace.parent.to_string(), "b7ad6b7169203331");
        let data = Ended {
            trace,
            whose: Whose::Run,
            name: "order".into(),
            from: Timestamp(1_000_000),
            to: Timestamp(3_000_000),
            attributes: vec![],
            error: Some("no stock".to_owned()),
        }
        .into_data();
        assert_eq!(
            data.span_context.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(
            data.end_time.duration_since(data.start_time).unwrap(),
            Duration::from_secs(2)
        );
        assert_eq!(data.status, Status::error("no stock"));
    }

    #[test]
    fn what_was_not_sampled_is_left_alone() {
        let trace = RunTrace::new(RUN, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
        assert_eq!(trace.traceparent(TaskNo(1)), None);
    }
}
