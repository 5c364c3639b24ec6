//! Traces: exported by OTLP when an endpoint is given, and carried through messages in the W3C headers either way.
//!
//! Requests of the API are spans while they are answered. Runs are not: see [`super::span`].

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanProcessor};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::span::SpanSink;
use crate::bus::Headers;

/// A provider that sends spans to `endpoint` (a collector's base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it), and the way
/// in for spans that were not made by it.
pub(super) fn provider(endpoint: &str, replica: &str) -> Result<(SdkTracerProvider, SpanSink), ExporterBuildError> {
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
    let mut processor = BatchSpanProcessor::builder(exporter, Tokio).build();
    processor.set_resource(&resource);
    let processor = Arc::new(processor);
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(Shared(Arc::clone(&processor)))
        .build();
    Ok((provider, SpanSink::new(processor)))
}

/// One queue and one exporter for both ways in.
#[derive(Debug)]
struct Shared(Arc<BatchSpanProcessor<Tokio>>);

impl SpanProcessor for Shared {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
}

/// What a `traceparent` says; [`SpanContext::NONE`] if it cannot be read.
pub(super) fn parse(traceparent: &str) -> SpanContext {
    let headers = vec![(Arc::from(knarr_schemas::header::TRACEPARENT), traceparent.to_owned())];
    extract(&headers).span().span_context().clone()
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

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(value: &str) -> Headers {
        vec![(Arc::from("traceparent"), value.to_owned())]
    }

    #[test]
    fn a_span_continues_the_trace_of_its_message() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("api");
            continue_from(&span, &headers(PARENT));
            let context = span.context().span().span_context().clone();
            assert_eq!(context.trace_id(), parse(PARENT).trace_id());
            assert_ne!(context.span_id(), parse(PARENT).span_id());
        });
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
