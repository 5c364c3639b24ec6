//! A collector of spans: what an exporter posts to it over OTLP (HTTP, protobuf), kept for the test to look at.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::eventually;

#[derive(Debug)]
pub struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = Arc::clone(&spans);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept)));
            }
        });
        Self { url, spans, accepting }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The spans of a trace, once there are so many of them.
    pub async fn trace(&self, id: &str, at_least: usize) -> Vec<Span> {
        let what = format!("{at_least} spans of the trace {id}");
        let (spans, _) = eventually(&what, Duration::from_secs(20), || async {
            let all = self.spans.lock().unwrap();
            let trace: Vec<Span> = all.iter().filter(|span| hex(&span.trace_id) == id).cloned().collect();
            (trace.len() >= at_least).then_some(trace)
        })
        .await;
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, spans: Arc<Mutex<Vec<Span>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            match line.to_ascii_lowercase().trim_end().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().unwrap(),
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let export = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        let new = export
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans);
        spans.lock().unwrap().extend(new);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
