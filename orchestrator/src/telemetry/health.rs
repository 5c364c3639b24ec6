//! Whether this process is alive and whether it can do its work, as an orchestrating platform asks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;

/// One thing that readiness depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Check {
    pub fn ready(name: &'static str) -> Self {
        Self {
            name,
            ready: true,
            reason: None,
        }
    }

    pub fn not_ready(name: &'static str, reason: impl Into<String>) -> Self {
        Self {
            name,
            ready: false,
            reason: Some(reason.into()),
        }
    }

    pub fn of(name: &'static str, result: Result<(), impl ToString>) -> Self {
        match result {
            Ok(()) => Self::ready(name),
            Err(error) => Self::not_ready(name, error.to_string()),
        }
    }
}

/// Asked at every request for readiness; must answer within a few seconds.
pub type Readiness = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<Check>> + Send>> + Send + Sync>;

/// Makes a [`Readiness`] of an async closure.
pub fn readiness<F, R>(ask: F) -> Readiness
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Vec<Check>> + Send + 'static,
{
    Arc::new(move || Box::pin(ask()))
}
