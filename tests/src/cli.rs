//! The command line, as a process of its own.

use std::process::Stdio;

use serde_json::Value;

use crate::{Stack, binaries};

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// What it printed, of a command that was asked for JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same, of one that must have succeeded.
    pub fn good(&self) -> Value {
        assert_eq!(self.status, 0, "{self:?}");
        self.json()
    }

    /// The code of the error on stderr.
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_str(self.err.lines().last().unwrap_or_default()).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Runs `knarr -o json …` on the servers of the stack; nobody can be asked anything.
pub async fn knarr(stack: &Stack, arguments: &[&str]) -> Ended {
    run(stack, &[&["-o", "json"], arguments].concat()).await
}

/// Runs `knarr …`, printing for people.
pub async fn run(stack: &Stack, arguments: &[&str]) -> Ended {
    let output = tokio::process::Command::new(binaries::knarr())
        .args(["--nats-url", stack.nats_url()])
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    Ended {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
