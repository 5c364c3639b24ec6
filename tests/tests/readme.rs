//! The README's tour, as it stands there: its definition, its worker in Python, its commands.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use async_nats::HeaderMap;
use knarr_tests::child::ChildProcess;
use knarr_tests::{Stack, binaries, eventually};

const README: &str = include_str!("../../README.md");
/// What `pip install nats-py` finds today; pinned, so that a new release fails nobody's change.
const NATS_PY: &str = "nats-py==2.16.0";

/// The fenced blocks in a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    let fenced = README.split(opening.as_str()).skip(1);
    fenced.map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Lines of shell, comments cut off.
fn commands(beginning: &str) -> Vec<String> {
    let lines = blocks("sh").into_iter().flat_map(str::lines);
    lines
        .filter(|line| line.starts_with(beginning))
        .map(|line| line.split(" #").next().unwrap().trim().to_owned())
        .collect()
}

/// By the shell, as a person would.
fn shell(stack: &Stack, directory: &Path, line: &str) -> Output {
    let bin = binaries::knarr().parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    Command::new("sh")
        .args(["-c", line])
        .current_dir(directory)
        .env("PATH", path)
        .env("KNARR_NATS_URL", stack.nats_url())
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_works_as_it_is_written() {
    let stack = Stack::start().await;
    let _replica = knarr_tests::Replica::start(&stack, "one").await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("hello.yaml"), blocks("yaml")[0]).unwrap();
    for line in commands("knarr check").into_iter().chain(commands("knarr definition")) {
        let output = shell(&stack, directory.path(), &line);
        assert!(output.status.success(), "{line}: {output:?}");
    }

    let packages = directory.path().join("packages");
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
    ];
    let installed = Command::new("python3").args(pip).arg(&packages).arg(NATS_PY).output();
    let installed = installed.unwrap();
    assert!(installed.status.success(), "{installed:?}");
    let worker = blocks("python")[0];
    assert!(worker.contains("nats://127.0.0.1:4222"));
    let mut command = Command::new("python3");
    command
        .arg("-c")
        .arg(worker.replace("nats://127.0.0.1:4222", stack.nats_url()))
        .env("PYTHONPATH", &packages);
    let _worker = ChildProcess::spawn(command, &directory.path().join("worker.log"));

    // `nats pub --jetstream -H <name>:<value> <subject> '<body>'`, twice: the message id makes one run of it.
    let publish = commands("nats pub").remove(0);
    let words: Vec<&str> = publish.split(' ').collect();
    let (name, value) = words[4].split_once(':').unwrap();
    let body = publish.split('\'').nth(1).unwrap();
    for _ in 0..2 {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        let body = serde_json::from_str(body).unwrap();
        stack.starter().publish(words[5], headers, &body).await;
        stack.all_closed(1, Duration::from_secs(30)).await;
    }
    let started = shell(&stack, directory.path(), &commands("knarr start").remove(0));
    assert!(started.status.success(), "{started:?}");
    let told = String::from_utf8_lossy(&started.stdout);
    assert!(told.contains("Hello, Grace!"), "{told}");

    for (line, said) in [
        ("knarr list", "hello-1"),
        ("knarr show", "Hello, Ada!"),
        ("knarr history", "can be undone"),
    ] {
        let line = commands(line).remove(0);
        let output = shell(&stack, directory.path(), &line);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains(said), "{line}: {told}");
    }
    eventually("two runs, and no third", Duration::from_secs(5), || async {
        (stack.closed_runs().await == 2).then_some(())
    })
    .await;
    stack.stop().await;
}
