//! Traces: exported by OTLP when an endpoint is given, and carried through messages in the W3C headers either way.
//!
//! A run outlives any span, so a `traceparent` that came with its start is a string that goes with its tasks; a span of
//! the orchestrator is put between only where export is on.

use std::sync::Arc;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::bus::Headers;

/// A provider that sends spans to `endpoint` (a collector's base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it).
pub(super) fn provider(endpoint: &str, replica: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    // The variable names a base, the builder wants the whole path.
    let url = match endpoint.trim_end_matches('/') {
        url if url.ends_with("/v1/traces") => url.to_owned(),
        base => format!("{base}/v1/traces"),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .build()?;
    let resource = Resource::builder()
        .with_service_name("knarr")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", replica.to_owned()))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(BatchSpanProcessor::builder(exporter, Tokio).build())
        .build())
}

struct Into<'a>(&'a mut Headers);

impl Injector for Into<'_> {
    fn set(&mut self, key: &str, value: String) {
        match self.0.iter_mut().find(|(name, _)| &**name == key) {
            Some((_, old)) => *old = value,
            None if value.is_empty() => {}
            None => self.0.push((Arc::from(key), value)),
        }
    }
}

struct From<'a>(&'a Headers);

impl Extractor for From<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        crate::bus::header(self.0, key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| &**name).collect()
    }
}

/// Writes a span's `traceparent` and `tracestate`; leaves headers alone when the span is not part of a trace.
pub fn inject(span: &Span, headers: &mut Headers) {
    let context = span.context();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut Into(headers));
    }
}

/// The trace a message belongs to; the empty context if it says none, or says it wrongly.
pub fn extract(headers: &Headers) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &From(headers))
}

/// Makes `span` a child of the trace its message belongs to.
pub fn continue_from(span: &Span, headers: &Headers) {
    let context = extract(headers);
    if context.span().span_context().is_valid() {
        // Fails only where no layer exports, and then there is nothing to continue.
        let _ = span.set_parent(context);
    }
}

/// A `traceparent` as a string, to be kept with a run; `None` when the span is not part of a trace.
pub fn traceparent(span: &Span) -> Option<String> {
    let mut headers = Headers::new();
    inject(span, &mut headers);
    crate::bus::header(&headers, knarr_schemas::header::TRACEPARENT).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, TracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(value: &str) -> Headers {
        vec![(Arc::from("traceparent"), value.to_owned())]
    }

    #[test]
    fn a_trace_goes_through_a_span_into_the_next_message() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("dispatch");
            continue_from(&span, &headers(PARENT));
            let sent = traceparent(&span).unwrap();
            assert_eq!(sent[..36], PARENT[..36], "the trace is the same one");
            assert_ne!(sent, PARENT, "the span is a new one");
        });
    }

    #[test]
    fn without_export_headers_stay_as_they_are() {
        let mut headers = headers(PARENT);
        inject(&tracing::info_span!("dispatch"), &mut headers);
        assert_eq!(headers[0].1, PARENT);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn nonsense_is_no_trace() {
        for bad in [
            "",
            "00-zz-xx-01",
            "0af7651916cd43dd8448eb211c80319c",
            &"a".repeat(10_000),
        ] {
            assert_eq!(
                extract(&headers(bad)).span().span_context(),
                &SpanContext::NONE,
                "{bad}"
            );
        }
        assert_eq!(extract(&Headers::new()).span().span_context(), &SpanContext::NONE);
    }
}
