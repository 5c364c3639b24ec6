//! What cannot be taken: each ends in its dead letter with a code, is answered where that was asked for, and holds up
//! nothing behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use knarr_schemas::body::AnswerStage;
use knarr_tests::jetstream::{self, dead_letters};
use knarr_tests::raw::publish_raw;
use knarr_tests::{Fault, Replica, Stack, WorkerProcess, audit, eventually};

struct Case {
    name: &'static str,
    subject: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Code and the last part of the dead letter's subject.
    code: &'static str,
    reason: &'static str,
    namespace: &'static str,
    /// Whether somebody is told, if he asks.
    answered: bool,
}

fn case(name: &'static str, subject: &str, body: impl Into<Vec<u8>>, code: &'static str, reason: &'static str) -> Case {
    Case {
        name,
        subject: subject.to_owned(),
        headers: Vec::new(),
        body: body.into(),
        code,
        reason,
        namespace: "default",
        answered: true,
    }
}

impl Case {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn of(self, namespace: &'static str) -> Self {
        Self { namespace, ..self }
    }
}

fn cases() -> Vec<Case> {
    let start = |id: &str| format!("knarr.run.default.{id}.start.order");
    let input = Fault::None.input().to_string();
    let many_digits = "9".repeat(400);
    // The form of a token, and nothing behind it.
    let forged = "A".repeat(48);
    vec![
        case(
            "NUL in an input",
            &start("b-1"),
            r#"{"a": "\u0000"}"#,
            "KN0218",
            "nul_character",
        ),
        case(
            "a raw NUL in an input",
            &start("b-2"),
            b"{\"a\": \"\0\"}".to_vec(),
            "KN0203",
            "bad_json",
        ),
        case(
            "400 digits in an input",
            &start("b-3"),
            format!("{{\"a\": {many_digits}}}"),
            "KN0219",
            "number_range",
        ),
        case(
            "NUL in a search attribute",
            &start("b-4"),
            input.clone(),
            "KN0217",
            "search_attribute",
        )
        .with("Knarr-Search-Attributes", r#"{"a": "\u0000"}"#),
        case(
            "400 digits in a search attribute",
            &start("b-5"),
            input.clone(),
            "KN0217",
            "search_attribute",
        )
        .with("Knarr-Search-Attributes", format!("{{\"a\": {many_digits}}}")),
        case(
            "a list for search attributes",
            &start("b-6"),
            input.clone(),
            "KN0217",
            "search_attribute",
        )
        .with("Knarr-Search-Attributes", "[1]"),
        case("half an object", &start("b-7"), r#"{"a": "#, "KN0203", "bad_json"),
        case("no UTF-8", &start("b-8"), b"\"\xff\"".to_vec(), "KN0203", "bad_json"),
        case("deep nesting", &start("b-9"), "[".repeat(100_000), "KN0203", "bad_json"),
        case(
            "an unknown workflow",
            "knarr.run.default.b-10.start.ordre",
            input.clone(),
            "KN0206",
            "unknown_workflow",
        ),
        case(
            "an unknown namespace",
            "knarr.run.nowhere.b-11.start.order",
            input.clone(),
            "KN0205",
            "unknown_namespace",
        )
        .of("nowhere"),
        case(
            "an unknown version",
            &start("b-12"),
            input.clone(),
            "KN0207",
            "unknown_version",
        )
        .with("Knarr-Version", "77"),
        case("no version", &start("b-13"), input.clone(), "KN0222", "bad_header").with("Knarr-Version", "latest"),
        case(
            "an unknown policy",
            &start("b-14"),
            input.clone(),
            "KN0222",
            "bad_header",
        )
        .with("Knarr-Id-Reuse", "maybe"),
        case(
            "a task's headers on a start",
            &start("b-15"),
            input.clone(),
            "KN0216",
            "task_headers",
        )
        .with("Knarr-Task", "1")
        .with("Knarr-Token", forged.clone()),
        case(
            "a start of nothing",
            "knarr.run.default.b-16.start",
            input.clone(),
            "KN0201",
            "bad_subject",
        ),
        case(
            "a subject that is not canonical",
            "knarr.run.default.%62-17.start.order",
            input.clone(),
            "KN0202",
            "bad_token",
        ),
        case(
            "NUL in a workflow id",
            "knarr.run.default.b%00.start.order",
            input.clone(),
            "KN0202",
            "bad_token",
        ),
        case(
            "NUL in a namespace",
            "knarr.run.%00.b-23.start.order",
            input.clone(),
            "KN0202",
            "bad_token",
        )
        .of("_"),
        case(
            "NUL in a workflow's name",
            "knarr.start.default.order%00",
            input.clone(),
            "KN0202",
            "bad_token",
        )
        .with("Knarr-Version", "1"),
        case(
            "NUL in a request id",
            &start("b-24"),
            input.clone(),
            "KN0222",
            "bad_header",
        )
        .with("Knarr-Request-Id", "a\0b"),
        case(
            "NUL in a message id",
            "knarr.start.default.order",
            input.clone(),
            "KN0222",
            "bad_header",
        )
        .with("Nats-Msg-Id", "a\0b"),
        case(
            "NUL in the id of an un-keyed start",
            "knarr.start.default.order",
            input.clone(),
            "KN0222",
            "bad_header",
        )
        .with("Knarr-Workflow-Id", "a\0b"),
        case(
            "NUL in a cancel's reason",
            "knarr.run.default.b-25.cancel",
            "",
            "KN0222",
            "bad_header",
        )
        .with("Knarr-Verb", "cancel default")
        .with("Knarr-Reason", "\0"),
        case(
            "an unknown verb",
            "knarr.run.default.b-18.dance",
            "",
            "KN0223",
            "unknown_verb",
        ),
        case(
            "a cancel without its header",
            "knarr.run.default.b-19.cancel",
            "",
            "KN0215",
            "verb_header",
        ),
        case(
            "a cancel with another namespace's header",
            "knarr.run.default.b-20.cancel",
            "",
            "KN0215",
            "verb_header",
        )
        .with("Knarr-Verb", "cancel other"),
        case(
            "a cancel of no run",
            "knarr.run.default.b-21.cancel",
            "",
            "KN0211",
            "unknown_run",
        )
        .with("Knarr-Verb", "cancel default"),
        case(
            "a result without a token",
            "knarr.run.default.b-22.result",
            "{}",
            "KN0213",
            "bad_task_token",
        ),
        case(
            "a result for a run that never was",
            "knarr.run.default.b-23.result",
            "{}",
            "KN0213",
            "bad_task_token",
        )
        .with("Knarr-Token", forged),
        case(
            "an un-keyed start of an unknown workflow",
            "knarr.start.default.ordre",
            input.clone(),
            "KN0206",
            "unknown_workflow",
        ),
        case(
            "an un-keyed start with a bad body",
            "knarr.start.default.order",
            "{",
            "KN0203",
            "bad_json",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_a_dead_letter_with_its_code_and_the_partitions_go_on() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    let _worker = WorkerProcess::start(&stack, "worker");
    let starter = stack.starter();
    let cases = cases();
    let mut wrong = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let mut headers = HeaderMap::new();
        for (name, value) in &case.headers {
            headers.insert(*name, value.as_str());
        }
        if case.answered {
            let inbox = stack.nats().new_inbox();
            let mut answers = stack.nats().subscribe(inbox.clone()).await.unwrap();
            headers.insert("Knarr-Reply-To", inbox.as_str());
            headers.insert("Knarr-Reply-On", "started");
            starter
                .publish_once(&case.subject, headers, case.body.clone().into())
                .await
                .unwrap();
            let answer =
                tokio::time::timeout(Duration::from_secs(10), futures_util::StreamExt::next(&mut answers)).await;
            match answer {
                Ok(Some(message)) => {
                    let answer: knarr_schemas::body::Answer = serde_json::from_slice(&message.payload).unwrap();
                    let code = answer.error.as_ref().map(|error| error.code.as_str());
                    if answer.stage != AnswerStage::Refused || code != Some(case.code) {
                        wrong.push(format!("{}: answered {answer:?}", case.name));
                    }
                }
                _ => wrong.push(format!("{}: not answered", case.name)),
            }
        } else {
            starter
                .publish_once(&case.subject, headers, case.body.clone().into())
                .await
                .unwrap();
        }
        let (letters, _) = eventually(case.name, Duration::from_secs(10), || async {
            let letters = dead_letters(stack.nats()).await;
            (letters.len() > n).then_some(letters)
        })
        .await;
        let letter = &letters[n];
        let subject = format!("knarr.dlq.{}.{}", case.namespace, case.reason);
        let code = letter.header("Knarr-Error-Code");
        if letter.subject != subject || code != case.code || letter.header("Knarr-Error-Remedy").is_empty() {
            wrong.push(format!("{}: {} with {code}", case.name, letter.subject));
        }
        if letter.body != case.body {
            wrong.push(format!("{}: the body has changed", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Every partition goes on.
    let mut expected = BTreeMap::new();
    for n in 0..24 {
        let id = format!("good-{n}");
        starter.start(&id, Fault::None).await;
        expected.insert(id, Fault::None);
    }
    stack.all_closed(expected.len(), Duration::from_secs(30)).await;
    audit(&stack, &expected).await;
    assert_eq!(dead_letters(stack.nats()).await.len(), cases.len());
    stack.stop().await;
}

/// Every client breaks its connection over these; nats-server stores them.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_no_client_can_read_are_dead_letters_and_hold_up_nothing() {
    let stack = Stack::start().await;
    let replica = stack.first_replica("one").await;
    let _worker = WorkerProcess::start(&stack, "worker");
    let starter = stack.starter();
    let blocks = [
        (
            starter.start_subject("raw-1"),
            &b"NATS/1.0\r\nX-Name: caf\xff\r\n\r\n"[..],
        ),
        (starter.start_subject("raw-2"), b"NATS/1.0\r\nno colon\r\n\r\n"),
        (
            "knarr.start.default.order".to_owned(),
            b"NATS/1.0\r\nX-Name: caf\xff\r\n\r\n",
        ),
        ("knarr.run.default.raw-3".to_owned(), b"HTTP/1.1\r\n\r\n"),
    ];
    let mut expected = BTreeMap::new();
    for (n, (subject, block)) in blocks.iter().enumerate() {
        for m in 0..8 {
            let id = format!("good-{n}-{m}");
            starter.start(&id, Fault::None).await;
            expected.insert(id, Fault::None);
        }
        publish_raw(stack.nats_url(), subject, block, b"{}").await;
    }
    stack.all_closed(expected.len(), Duration::from_secs(30)).await;
    let (letters, _) = eventually("the dead letters", Duration::from_secs(30), || async {
        let letters = dead_letters(stack.nats()).await;
        (letters.len() == blocks.len()).then_some(letters)
    })
    .await;
    for letter in &letters {
        assert_eq!(letter.subject, "knarr.dlq.default.unreadable_headers");
        assert_eq!(
            (letter.header("Knarr-Error-Code"), &letter.body[..]),
            ("KN0241", &b"{}"[..])
        );
        let kept = letter.header("Knarr-Original-Headers");
        assert!(
            blocks.iter().any(|(_, block)| kept == block.escape_ascii().to_string()),
            "{kept}"
        );
    }
    // Nothing of it comes again.
    let replica_two = Replica::start(&stack, "two").await;
    drop(replica);
    for n in 0..8 {
        let id = format!("later-{n}");
        starter.start(&id, Fault::None).await;
        expected.insert(id, Fault::None);
    }
    stack.all_closed(expected.len(), Duration::from_secs(30)).await;
    audit(&stack, &expected).await;
    assert_eq!(dead_letters(stack.nats()).await.len(), blocks.len());
    drop(replica_two);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_are_refused_where_they_are_sent() {
    let stack = Stack::start().await;
    let replica = stack.first_replica("one").await;
    let starter = stack.starter();
    let body = vec![b' '; 10 << 20];
    let published = stack
        .nats()
        .publish(starter.start_subject("huge"), body.clone().into())
        .await;
    assert!(published.is_err(), "the client sends what the server does not take");

    // A client that does not look is cut off by the server; the others and the log do not notice.
    let address = stack.nats_url().trim_start_matches("nats://").to_owned();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let told = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let head = format!(
            "CONNECT {{}}\r\nPUB knarr.run.default.huge.start.order {}\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        // The server may close before it has read all of it.
        let _ = socket.write_all(&body).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    assert!(told.contains("Maximum Payload"), "{told}");
    assert_eq!(jetstream::messages(stack.nats(), "KNARR_IN").await, Some(0));
    assert_eq!(
        starter.start_confirmed("small", Fault::None).await.stage,
        AnswerStage::Started
    );
    drop(replica);
    stack.stop().await;
}
