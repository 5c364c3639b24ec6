//! The recorder behind the `metrics` macros, in the form that Prometheus reads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::metric::{ALL, Kind};

/// Histograms keep what came since the last upkeep apart, so this bounds their memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Installs the recorder, once in the life of the process; later calls return the same one. What has
/// no labels is there from the start, so that a rate is right from the first event on.
///
/// # Errors
/// When another recorder was installed by somebody else.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut installed = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(installed.insert(handle).clone())
}

pub(super) fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
        }
    }
    Ok(builder)
}

/// To the recorder that is installed.
pub(super) fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    for metric in ALL.iter().filter(|metric| metric.labels.is_empty()) {
        match metric.kind {
            Kind::Counter => metrics::counter!(metric.name).absolute(0),
            Kind::Gauge => metrics::gauge!(metric.name).set(0.0),
            Kind::Histogram(_) => drop(metrics::histogram!(metric.name)),
        }
    }
}

/// Tidies up for as long as it is polled.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}
