//! `knarr bench` and `knarr demo` as a person runs them, on private servers.

#![expect(
    clippy::unwrap_used,
    reason = "outside of #[test] functions clippy does not see that this is a test"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn knarr(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knarr"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("KNARR_NATS_URL")
        .env_remove("KNARR_DATABASE_URL");
    command
}

fn measured(arguments: &[&str]) -> Value {
    let output = knarr(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn sagas_are_measured_and_checked() {
    let short = ["--duration", "1s", "--warmup", "200ms", "-o", "json"];
    for (scenario, load, steps) in [
        ("order", ["--in-flight", "4"], 4.0),
        ("order_failing", ["--rate", "20"], 5.0),
    ] {
        let report = measured(&[&["bench", scenario][..], &load, &short].concat());
        for clean in [
            "lost",
            "wrong_ends",
            "step_runs_over_expected",
            "step_runs_missing",
            "out_of_order",
        ] {
            assert_eq!(report[clean], 0, "{clean}: {report:#}");
        }
        let sagas = report["sagas"].as_f64().unwrap();
        assert!(sagas >= 1.0, "{report:#}");
        assert!(report["latency_ms"]["p50"].as_f64().unwrap() > 0.0, "{report:#}");
        for process in ["orchestrator", "postgres", "nats", "worker", "client"] {
            assert!(report["cpu_s_per_1000"][process].is_number(), "{process}: {report:#}");
        }
        // Some sagas are cut by the ends of the time.
        let per_saga = report["steps_per_s"].as_f64().unwrap() / report["sagas_per_s"].as_f64().unwrap();
        assert!((per_saga - steps).abs() < steps, "{report:#}");
    }
}

#[test]
fn each_event_of_a_stream_starts_one_run() {
    let stored = measured(&["bench", "triggers", "--messages", "300", "-o", "json"]);
    let paced = ["--rate", "50", "--duration", "1s", "--warmup", "200ms"];
    let rated = measured(&[&["bench", "triggers"][..], &paced, &["-o", "json"]].concat());
    for (report, events) in [(&stored, 300), (&rated, 60)] {
        assert_eq!((&report["events"], &report["runs"]), (&events.into(), &events.into()));
        for clean in ["lost", "doubled", "unended", "refused", "gaps"] {
            assert_eq!(report[clean], 0, "{clean}: {report:#}");
        }
        assert!(report["events_per_s"].as_f64().unwrap() > 0.0, "{report:#}");
        assert_eq!(report["findings"], Value::Array(Vec::new()));
    }
    assert!(rated["latency_ms"]["p99"].as_f64().unwrap() > 0.0, "{rated:#}");
    assert!(stored.get("latency_ms").is_none(), "{stored:#}");
    assert!(stored["published_in_s"].as_f64().unwrap() > 0.0, "{stored:#}");
}

/// Processes whose command line names this text, other than the one with this pid.
fn processes(text: &str, other_than: u32) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| entry.file_name() != *other_than.to_string())
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

#[test]
fn nothing_outlives_a_measurement_that_is_killed() {
    let namespace = format!("killed{}", std::process::id());
    #[expect(clippy::zombie_processes, reason = "it is awaited unless the test has failed")]
    let mut bench = knarr(&["bench", "order", "--duration", "10m", "--namespace", &namespace])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut await_workers = |count| {
        while processes(&namespace, bench.id()) != count {
            assert!(Instant::now() < deadline, "there are not {count} workers");
            std::thread::sleep(Duration::from_millis(20));
        }
        if count > 0 {
            bench.kill().unwrap();
            bench.wait().unwrap();
        }
    };
    await_workers(1);
    await_workers(0);
}

#[test]
fn the_demo_ends_by_itself_and_a_further_one_continues() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("demo");
    for orders in [["order-1", "order-2"], ["order-3", "order-4"]] {
        let told = knarr(&["demo", "--http-listen", "127.0.0.1:0", "-o", "json", "--data-dir"])
            .arg(&data_dir)
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        let told: Vec<_> = told["orders"]
            .as_array()
            .unwrap()
            .iter()
            .map(|order| order.to_string())
            .collect();
        let expected: Vec<_> = orders
            .iter()
            .zip(["completed", "compensated"])
            .map(|(id, status)| format!(r#"{{"workflow_id":"{id}","status":"{status}"}}"#))
            .collect();
        assert_eq!(told, expected);
    }
}
