//! Logs, on stderr: for people by default, as JSON lines for machines.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Deserialize;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use super::{span, trace};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

#[derive(Debug, Clone, Default)]
pub struct TelemetryOptions {
    /// Directives like `info` or `knarr=debug,sqlx=warn`.
    pub filter: String,
    pub format: LogFormat,
    /// Where spans go; `None` = nowhere.
    pub otlp_endpoint: Option<String>,
    /// Names this process in traces.
    pub replica: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter `{filter}` cannot be read: {source}")]
    Filter { filter: String, source: ParseError },
    #[error("spans cannot be sent to {endpoint}: {source}")]
    Otlp {
        endpoint: String,
        source: opentelemetry_otlp::ExporterBuildError,
    },
    #[error("logging was set up before: {0}")]
    Again(#[from] TryInitError),
}

/// Sends what is left to send when the process ends.
#[derive(Debug)]
#[must_use = "spans are lost when this is dropped early"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

impl TelemetryGuard {
    /// Waits, a few seconds at most, until the last spans are sent.
    pub async fn flush(mut self) {
        if let Some(provider) = self.provider.take()
            && let Ok(Err(error)) = tokio::task::spawn_blocking(move || provider.shutdown()).await
        {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Once in the life of the process, within a tokio runtime.
pub fn init(options: &TelemetryOptions) -> Result<TelemetryGuard, TelemetryError> {
    let filter = options.filter.clone();
    let directives = EnvFilter::try_new(&filter).map_err(|source| TelemetryError::Filter { filter, source })?;
    let lines = match options.format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(colour())
            .with_target(false)
            .boxed(),
    };
    let provider = match &options.otlp_endpoint {
        Some(endpoint) => {
            let (provider, sink) =
                trace::provider(endpoint, &options.replica).map_err(|source| TelemetryError::Otlp {
                    endpoint: endpoint.clone(),
                    source,
                })?;
            span::install(sink);
            Some(provider)
        }
        None => None,
    };
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("knarr")));
    tracing_subscriber::registry()
        .with(directives)
        .with(lines)
        .with(spans)
        .try_init()?;
    Ok(TelemetryGuard { provider })
}

fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
