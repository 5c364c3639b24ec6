//! The participants' barrier against a real PostgreSQL: alone, in every interleaving of two transactions, and behind the
//! handlers of a worker that is killed or hangs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use knarr_tests::child::ChildProcess;
use knarr_tests::{Stack, binaries, eventually};
use knarr_worker::barrier::{ENTER, Entered, RECORD, Verdict, enter};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, PgPool, Postgres, Transaction};

const INSTALL: &str = include_str!("../../deploy/barrier/postgres.sql");

async fn install(pool: &PgPool) {
    // Twice: it may be run again at any time.
    for _ in 0..2 {
        sqlx::raw_sql(INSTALL).execute(pool).await.unwrap();
    }
}

async fn ask(connection: &mut PgConnection, key: &str) -> Result<(Verdict, Option<Value>), sqlx::Error> {
    let (verdict, output): (String, Option<String>) = sqlx::query_as(ENTER).bind(key).fetch_one(connection).await?;
    let output = output.map(|text| serde_json::from_str(&text).unwrap());
    Ok((Verdict::parse(&verdict).unwrap(), output))
}

/// Asks, records an answer, and commits.
async fn pass(pool: &PgPool, key: &str, answer: &Value) -> (Verdict, Option<Value>) {
    let mut transaction = pool.begin().await.unwrap();
    let told = ask(&mut transaction, key).await.unwrap();
    if told.0 == Verdict::Proceed {
        let record = sqlx::query(RECORD).bind(key).bind(answer.to_string());
        record.execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn one_after_the_other() {
    let stack = Stack::start().await;
    let pool = stack.pool();
    install(pool).await;
    let (paid, refunded) = (json!({ "payment_id": "p-1" }), json!({ "refund_id": "r-1" }));

    // Done, done again, undone, undone again, and a do that comes last of all.
    let say = |verdict, output: Option<&Value>| (verdict, output.cloned());
    assert_eq!(pass(pool, "a/pay/do", &paid).await, say(Verdict::Proceed, None));
    assert_eq!(
        pass(pool, "a/pay/do", &json!(2)).await,
        say(Verdict::Duplicate, Some(&paid))
    );
    assert_eq!(
        pass(pool, "a/pay/undo", &refunded).await,
        say(Verdict::Proceed, Some(&paid))
    );
    let repeat = pass(pool, "a/pay/undo", &json!(2)).await;
    assert_eq!(repeat, say(Verdict::Duplicate, Some(&refunded)));
    assert_eq!(pass(pool, "a/pay/do", &paid).await, say(Verdict::Refused, None));

    // Undone without having been done; other steps, iterations and runs are none of its business.
    assert_eq!(pass(pool, "b/pay/undo", &refunded).await, say(Verdict::NotDone, None));
    assert_eq!(pass(pool, "b/pay/undo", &refunded).await, say(Verdict::Duplicate, None));
    assert_eq!(pass(pool, "b/pay/do", &paid).await, say(Verdict::Refused, None));
    for other in [
        "b/lines[0].pay/do",
        "b/lines[1].pay/do",
        "c/pay/do",
        "c/do/do",
        "c/undo/do",
    ] {
        assert_eq!(pass(pool, other, &paid).await.0, Verdict::Proceed, "{other}");
    }

    // A do that is rolled back never was.
    let mut transaction = pool.begin().await.unwrap();
    assert_eq!(ask(&mut transaction, "d/pay/do").await.unwrap().0, Verdict::Proceed);
    transaction.rollback().await.unwrap();
    assert_eq!(pass(pool, "d/pay/do", &paid).await.0, Verdict::Proceed);

    // What is no key, and an answer without a passage.
    let long = format!("{}/do", "x".repeat(2_049));
    for (key, state) in [
        ("", "22023"),
        ("a/pay", "22023"),
        ("/do", "22023"),
        ("a/pay/Do", "22023"),
        (&long, "23514"),
    ] {
        let error = ask(&mut pool.acquire().await.unwrap(), key).await.unwrap_err();
        assert_eq!(
            error.as_database_error().unwrap().code().as_deref(),
            Some(state),
            "{key}"
        );
    }
    let longest = format!("{}/do", "x".repeat(2_048));
    assert_eq!(pass(pool, &longest, &paid).await.0, Verdict::Proceed);
    for key in ["e/pay/do", "e/pay/undo", "b/pay/do"] {
        let error = sqlx::query(RECORD).bind(key).bind("1").execute(pool).await.unwrap_err();
        assert_eq!(
            error.as_database_error().unwrap().code().as_deref(),
            Some("55000"),
            "{key}"
        );
    }

    // Retention takes what is old, by its last use, in portions.
    sqlx::query("update knarr_barrier.steps set done_at = now() - interval '91 days' where step like 'b/lines%'")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("update knarr_barrier.steps set done_at = now() - interval '91 days' where step = 'a/pay'")
        .execute(pool)
        .await
        .unwrap();
    for removed in [1, 1, 0] {
        let forget = "select knarr_barrier.forget(interval '90 days', 1)";
        assert_eq!(stack.number(forget).await, removed);
    }
    assert_eq!(pass(pool, "a/pay/do", &paid).await.0, Verdict::Refused);
    let refused = sqlx::query("select knarr_barrier.forget(interval '23 hours')")
        .execute(pool)
        .await;
    assert!(refused.unwrap_err().to_string().contains("younger than a day"));
    stack.stop().await;
}

/// Two transactions, of which the second asks while the first is open.
#[tokio::test(flavor = "multi_thread")]
async fn every_interleaving_of_two() {
    let stack = Stack::start().await;
    install(stack.pool()).await;
    let both = |a: &'static str| ["do", "undo"].map(|b| (a, b));
    let pairs = [both("do"), both("undo")].concat();
    let mut cases = 0;
    for (first, second) in pairs {
        for (keeps_first, keeps_second) in [(true, true), (true, false), (false, true), (false, false)] {
            let step = format!("r/{first}-{second}-{keeps_first}-{keeps_second}");
            let key = |direction: &str| format!("{step}/{direction}");
            // What is known of the step by its row.
            let (mut done, mut undone) = (false, false);
            let mut expect = |direction: &str, keeps: bool| {
                let verdict = match (direction, done, undone) {
                    ("do", false, false) | ("undo", true, false) => Verdict::Proceed,
                    ("do", true, false) | ("undo", _, true) => Verdict::Duplicate,
                    ("do", ..) => Verdict::Refused,
                    _ => Verdict::NotDone,
                };
                done |= keeps && verdict == Verdict::Proceed && direction == "do";
                undone |= keeps && direction == "undo";
                verdict
            };
            let mut one = connect(&stack).await;
            let mut other = connect(&stack).await;
            let mut transaction = one.begin().await.unwrap();
            let told = ask(&mut transaction, &key(first)).await.unwrap().0;
            assert_eq!(told, expect(first, keeps_first), "{step}");
            let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
                .fetch_one(&mut other)
                .await
                .unwrap();
            let asked = key(second);
            let asking = tokio::spawn(async move {
                let mut transaction = other.begin().await.unwrap();
                let told = ask(&mut transaction, &asked).await.unwrap().0;
                end(transaction, keeps_second).await;
                told
            });
            waits(stack.pool(), pid).await;
            end(transaction, keeps_first).await;
            assert_eq!(asking.await.unwrap(), expect(second, keeps_second), "{step}");
            for direction in ["do", "undo", "do"] {
                let told = pass(stack.pool(), &key(direction), &Value::Null).await.0;
                assert_eq!(told, expect(direction, true), "{step}, {direction} afterwards");
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 16);

    // With one snapshot for the whole transaction the second cannot be told, and nothing of it is kept.
    let mut one = connect(&stack).await;
    let mut other = connect(&stack).await;
    let mut early = other.begin_with("begin isolation level repeatable read").await.unwrap();
    sqlx::query("select 1").execute(&mut *early).await.unwrap();
    let mut transaction = one.begin().await.unwrap();
    ask(&mut transaction, "r/rr/do").await.unwrap();
    transaction.commit().await.unwrap();
    let error = ask(&mut early, "r/rr/undo").await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("40001"));
    drop(early);
    assert_eq!(pass(stack.pool(), "r/rr/undo", &Value::Null).await.0, Verdict::Proceed);
    stack.stop().await;
}

async fn connect(stack: &Stack) -> PgConnection {
    PgConnection::connect(stack.postgres_url()).await.unwrap()
}

async fn end(transaction: Transaction<'_, Postgres>, keeps: bool) {
    if keeps {
        transaction.commit().await.unwrap();
    } else {
        transaction.rollback().await.unwrap();
    }
}

async fn waits(pool: &PgPool, pid: i32) {
    let look = || async {
        let waiting: Option<String> = sqlx::query_scalar("select wait_event_type from pg_stat_activity where pid = $1")
            .bind(pid)
            .fetch_one(pool)
            .await
            .unwrap();
        (waiting.as_deref() == Some("Lock")).then_some(())
    };
    eventually("the second transaction waits", Duration::from_secs(20), look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_ends_what_it_settles() {
    let stack = Stack::start().await;
    let pool = stack.pool();
    install(pool).await;
    let settled = |entered: Entered<'_>| match entered {
        Entered::Settled(answer) => answer,
        Entered::Proceed(_) => panic!("it may pass"),
    };
    let begin = || async { pool.begin().await.unwrap() };
    // Dropped, as by an error of the handler's.
    drop(enter(begin().await, "a/pay/do").await.unwrap());
    let Entered::Proceed(mut passage) = enter(begin().await, "a/pay/do").await.unwrap() else {
        panic!("the first is to pass");
    };
    assert_eq!(passage.recorded(), None);
    sqlx::query("create table work (id int)")
        .execute(passage.connection())
        .await
        .unwrap();
    assert_eq!(passage.commit(json!({ "n": 1.5 })).await.unwrap(), json!({ "n": 1.5 }));
    assert_eq!(
        settled(enter(begin().await, "a/pay/do").await.unwrap()),
        json!({ "n": 1.5 })
    );
    let Entered::Proceed(passage) = enter(begin().await, "a/pay/undo").await.unwrap() else {
        panic!("there is something to undo");
    };
    assert_eq!(passage.recorded(), Some(&json!({ "n": 1.5 })));
    passage.commit(()).await.unwrap();
    // Nothing but the call commits this one.
    assert_eq!(settled(enter(begin().await, "b/pay/undo").await.unwrap()), Value::Null);
    for key in ["a/pay/do", "b/pay/do"] {
        let error = enter(begin().await, key).await.unwrap_err();
        assert_eq!(error.error_type(), "undone_before", "{key}");
        assert!(error.to_string().starts_with("failed"), "{error}");
    }
    stack.stop().await;
}

const PAYMENT: &str = "
workflow: payment
version: 1
defaults: { queue: payments, start_to_close: 2s, retry: { initial_interval: 100ms, maximum_attempts: 3 } }
steps:
  - charge: { activity: charge, compensate: { activity: refund, input: {} } }
  - ship: { activity: ship, no_undo: it fails }
";

/// One attempt, whose outcome nobody learns of.
const ONCE: &str = "
workflow: once
version: 1
defaults: { queue: payments, start_to_close: 2s, retry: { initial_interval: 100ms, maximum_attempts: 1 } }
steps:
  - charge: { activity: charge, compensate: { activity: refund, input: {} } }
  - ship: { activity: ship, no_undo: it fails }
";

fn participant(stack: &Stack, name: &str, mode: &str) -> ChildProcess {
    let mut command = Command::new(binaries::participant());
    command.args([stack.nats_url(), stack.postgres_url(), mode]);
    ChildProcess::spawn(command, &stack.directory().join(format!("{name}.log")))
}

async fn tables(pool: &PgPool) {
    install(pool).await;
    let tables = "create table payments (id serial, run text, refunds int not null default 0);
                  create table calls (id serial, run text, what text)";
    sqlx::raw_sql(tables).execute(pool).await.unwrap();
}

async fn calls(pool: &PgPool) -> Vec<String> {
    let calls = sqlx::query_scalar("select what from calls order by id").fetch_all(pool);
    calls.await.unwrap()
}

async fn calls_are(pool: &PgPool, wanted: &[&str]) {
    let look = || async { (calls(pool).await == wanted).then_some(()) };
    eventually(&format!("the calls are {wanted:?}"), Duration::from_secs(60), look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_behind_its_commit_has_charged_once_and_is_undone() {
    let stack = Stack::start().await;
    tables(stack.pool()).await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", PAYMENT).await;
    let mut dying = participant(&stack, "dying", "die");
    let subject = "knarr.run.default.p-1.start.payment";
    stack.starter().publish(subject, Default::default(), &Value::Null).await;
    dying.ended(Duration::from_secs(20)).await;
    let _next = participant(&stack, "next", "work");
    stack.all_closed(1, Duration::from_secs(60)).await;
    calls_are(stack.pool(), &["charged", "repeated", "refunded"]).await;
    let refunds: Vec<i32> = sqlx::query_scalar("select refunds from payments")
        .fetch_all(stack.pool())
        .await
        .unwrap();
    assert_eq!(refunds, [1], "{}", stack.timeline("p-1").await);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_after_the_undo_is_refused() {
    let stack = Stack::start().await;
    tables(stack.pool()).await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", ONCE).await;
    let go = stack.directory().join("go");
    let _hanging = participant(&stack, "hanging", Path::to_str(&go).unwrap());
    let subject = "knarr.run.default.o-1.start.once";
    stack.starter().publish(subject, Default::default(), &Value::Null).await;
    // The attempt ends unknown, and is undone before it was done.
    stack.all_closed(1, Duration::from_secs(60)).await;
    calls_are(stack.pool(), &["nothing"]).await;
    std::fs::write(&go, "").unwrap();
    calls_are(stack.pool(), &["nothing", "refused"]).await;
    assert_eq!(stack.number("select count(*) from payments").await, 0);
    stack.stop().await;
}
