//! The HTTP side of telemetry: `/metrics`, `/health/live`, `/health/ready`. Everything else that is asked for gets an
//! error in JSON.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;

use super::code;
use super::health::{Check, Readiness};

/// A probe that waits longer has given up.
const READINESS_LIMIT: Duration = Duration::from_secs(5);

/// An error as every endpoint answers it.
#[derive(Debug, Serialize)]
pub struct HttpError {
    #[serde(skip)]
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    checks: Vec<Check>,
}

pub fn router(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(move || async move { exposition(&metrics) }))
        .route(
            "/health/live",
            get(|| async { Json(serde_json::json!({ "live": true })) }),
        )
        .route("/health/ready", get(move || ready(readiness.clone())))
        .method_not_allowed_fallback(|uri: Uri| async move {
            HttpError {
                status: 405,
                code: code::METHOD.id,
                message: format!("{} can only be read (GET)", uri.path()),
            }
        })
        .fallback(|uri: Uri| async move {
            HttpError {
                status: 404,
                code: code::NOT_FOUND.id,
                message: format!(
                    "there is nothing at {}; try /metrics, /health/live or /health/ready",
                    uri.path().chars().take(200).collect::<String>()
                ),
            }
        })
}

fn exposition(metrics: &PrometheusHandle) -> impl IntoResponse + use<> {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.render(),
    )
}

async fn ready(readiness: Readiness) -> Response {
    let checks = match tokio::time::timeout(READINESS_LIMIT, readiness()).await {
        Ok(checks) => checks,
        Err(_) => vec![Check::not_ready("answer", "not within five seconds")],
    };
    let ready = checks.iter().all(|check| check.ready);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Ready { ready, checks })).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::health::readiness;
    use super::super::{metric, metrics as recorder};
    use super::*;

    async fn ask(router: Router, request: &str) -> (u16, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: knarr\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn with(checks: Vec<Check>) -> Router {
        router(
            recorder::install().unwrap(),
            readiness(move || std::future::ready(checks.clone())),
        )
    }

    #[tokio::test]
    async fn answers_as_the_checks_say() {
        let (status, body) = ask(
            with(vec![Check::ready("store"), Check::ready("bus")]),
            "GET /health/ready",
        )
        .await;
        assert_eq!(
            (status, body.as_str()),
            (
                200,
                r#"{"ready":true,"checks":[{"name":"store","ready":true},{"name":"bus","ready":true}]}"#
            )
        );
        let failing = vec![Check::ready("store"), Check::of("bus", Err("no answer"))];
        let (status, body) = ask(with(failing), "GET /health/ready").await;
        assert_eq!(status, 503);
        assert!(
            body.contains(r#"{"name":"bus","ready":false,"reason":"no answer"}"#),
            "{body}"
        );
        assert_eq!(ask(with(vec![]), "GET /health/live").await.0, 200);
    }

    #[tokio::test]
    async fn what_is_not_there_is_an_error_in_json() {
        let (status, body) = ask(with(vec![]), "GET /nothing").await;
        assert_eq!(status, 404);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap()["code"],
            "KN0330"
        );
        let (status, body) = ask(with(vec![]), "POST /metrics").await;
        assert_eq!(status, 405);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap()["code"],
            "KN0331"
        );
    }

    #[tokio::test]
    async fn metrics_carry_their_description_and_buckets() {
        // Its own recorder: engines in other tests of this process feed the one that is installed.
        let own = recorder::builder().unwrap().build_recorder();
        metrics::with_local_recorder(&own, || {
            recorder::describe();
            metrics::histogram!(metric::COMMIT_SECONDS).record(0.004);
            metrics::counter!(metric::RUNS_CLOSED, "status" => "completed").increment(2);
        });
        let router = router(own.handle(), readiness(|| std::future::ready(vec![])));
        let (status, body) = ask(router, "GET /metrics").await;
        assert_eq!(status, 200);
        for line in [
            "# HELP knarr_commit_seconds Time of one commit, as its caller sees it.",
            "# TYPE knarr_commit_seconds histogram",
            "knarr_commit_seconds_bucket{le=\"0.005\"} ",
            "knarr_runs_closed_total{status=\"completed\"} 2",
        ] {
            assert!(
                body.lines().any(|found| found.starts_with(line)),
                "{line} is not in\n{body}"
            );
        }
    }
}
