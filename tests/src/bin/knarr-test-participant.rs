//! A participant with its own tables: `knarr-test-participant <nats url> <postgres url> <mode>`, of the queue `payments`.
//! `charge` and `refund` work behind the barrier, `ship` fails.
//!
//! `mode` says what becomes of the first delivery of a charge: `work`, `die` (right after its commit), or a path: it hangs
//! until there is such a file, and goes on then whether or not anybody waits. Ends when its standard input closes.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use knarr_worker::barrier::{Entered, enter};
use knarr_worker::{ActivityError, CancellationToken, Context, Worker};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [nats, postgres, mode] = arguments.as_slice() else {
        anyhow::bail!("three arguments are needed");
    };
    let pool = PgPoolOptions::new().max_connections(4).connect(postgres).await?;
    let (charging, refunding, mode) = (pool.clone(), pool, mode.clone());
    let worker = Worker::builder(knarr_worker::connect(nats).await?)
        .queue("payments")
        .activity("charge", move |ctx: Context, _: Value| {
            let work = charge(charging.clone(), ctx, mode.clone());
            // Not the handler's own future: it is not ended when its time is over.
            async { tokio::spawn(work).await? }
        })
        .activity("refund", move |ctx: Context, _: Value| refund(refunding.clone(), ctx))
        .activity("ship", |_: Context, _: Value| async {
            Err::<Value, _>(ActivityError::failed("no_stock", "nothing is left").non_retryable())
        })
        .build()?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    std::thread::spawn(move || {
        // Its end is all that matters.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.cancel();
    });
    worker.run(shutdown).await?;
    Ok(())
}

async fn charge(pool: PgPool, ctx: Context, mode: String) -> Result<Value, ActivityError> {
    let first = ctx.attempt() == 1 && ctx.delivery() == 1;
    while first && mode.starts_with('/') && !Path::new(&mode).exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let entered = enter(pool.begin().await?, ctx.idempotency_key()).await;
    let what = match &entered {
        Ok(Entered::Proceed(_)) => "charged",
        Ok(Entered::Settled(_)) => "repeated",
        Err(_) => "refused",
    };
    let answer = match entered {
        Ok(Entered::Proceed(mut passage)) => {
            // Not a function of the task: a second charge would have another one.
            let id: String = sqlx::query_scalar("insert into payments (run) values ($1) returning id::text")
                .bind(ctx.run_id())
                .fetch_one(passage.connection())
                .await?;
            passage.commit(json!({ "payment_id": id })).await
        }
        Ok(Entered::Settled(answer)) => Ok(answer),
        Err(error) => Err(error),
    };
    note(&pool, &ctx, what).await?;
    if first && mode == "die" {
        std::process::abort();
    }
    answer
}

async fn refund(pool: PgPool, ctx: Context) -> Result<Value, ActivityError> {
    match enter(pool.begin().await?, ctx.idempotency_key()).await? {
        Entered::Settled(answer) => {
            note(&pool, &ctx, "nothing").await?;
            Ok(answer)
        }
        Entered::Proceed(mut passage) => {
            let id = passage.recorded().and_then(|done| done["payment_id"].as_str());
            let id = id.unwrap_or_default().to_owned();
            let refunded = sqlx::query("update payments set refunds = refunds + 1 where id::text = $1")
                .bind(&id)
                .execute(passage.connection())
                .await?;
            let answer = passage.commit(json!({ "refunded": refunded.rows_affected() })).await?;
            note(&pool, &ctx, "refunded").await?;
            Ok(answer)
        }
    }
}

async fn note(pool: &PgPool, ctx: &Context, what: &str) -> Result<(), ActivityError> {
    sqlx::query("insert into calls (run, what) values ($1, $2)")
        .bind(ctx.run_id())
        .bind(what)
        .execute(pool)
        .await?;
    Ok(())
}
