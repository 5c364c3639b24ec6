//! The services of the order saga: what the example, `knarr demo` and `knarr bench` run.
//!
//! Seven activities: `create-order`, `process-payment`, `reserve-inventory`, `send-confirmation`, and the undos
//! `cancel-order`, `refund-payment`, `release-inventory`. Each takes a JSON object and acts once for each idempotency key:
//! a repeat answers what the first time did. They keep what they did in memory, bounded, and nowhere else.
//!
//! Each can be made to misbehave by its input's `fail`, an object from an activity's name to one of
//! - `failed`: says *failed*, non-retryable, and has done nothing;
//! - `unknown`: does its work and then says that it does not know;
//! - `flaky`: says *failed* at the first attempt, and works at the second;
//! - `slow`: takes longer than its time at the first attempt, and works at the second;
//! - `panic`: panics at the first attempt, and works at the second;
//! - `crash`: ends the whole process at the first delivery, and works at the next.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{ActivityError, Context, WorkerBuilder};

/// Forward activities and what undoes each.
pub const ACTIVITIES: [(&str, Option<&str>); 4] = [
    ("create-order", Some("cancel-order")),
    ("process-payment", Some("refund-payment")),
    ("reserve-inventory", Some("release-inventory")),
    ("send-confirmation", None),
];

/// What a service did at one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Its work, for the first time under this key.
    Applied,
    /// Nothing: the work had been done under this key before.
    Repeated,
    /// Nothing: it failed on request.
    Failed,
}

/// Is told of every call, before it is answered.
pub type Recorder = Arc<dyn Fn(&Context, Effect) + Send + Sync>;

/// How the services behave.
#[derive(Clone)]
pub struct OrderOptions {
    /// How long each call takes.
    pub work: Duration,
    /// How long `slow` takes: more than the definition's start-to-close.
    pub slow: Duration,
    /// Answers are filled up to at least so many bytes.
    pub result_bytes: usize,
    /// So many keys are remembered; beyond that the oldest are forgotten.
    pub remember: usize,
    pub recorder: Option<Recorder>,
    /// What `crash` does. If it returns, the call hangs.
    pub crash: Arc<dyn Fn() + Send + Sync>,
}

impl Default for OrderOptions {
    fn default() -> Self {
        Self {
            work: Duration::ZERO,
            slow: Duration::from_secs(60),
            result_bytes: 0,
            remember: 100_000,
            recorder: None,
            crash: Arc::new(|| std::process::abort()),
        }
    }
}

impl fmt::Debug for OrderOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderOptions")
            .field("work", &self.work)
            .field("slow", &self.slow)
            .field("result_bytes", &self.result_bytes)
            .field("remember", &self.remember)
            .finish_non_exhaustive()
    }
}

/// Adds the seven activities to a worker.
#[must_use]
pub fn order_services(mut builder: WorkerBuilder, options: OrderOptions) -> WorkerBuilder {
    let services = Arc::new(Services {
        options,
        done: Mutex::default(),
    });
    for name in ACTIVITIES
        .iter()
        .flat_map(|(forth, back)| std::iter::once(*forth).chain(*back))
    {
        let services = Arc::clone(&services);
        builder = builder.activity(name, move |ctx: Context, input: OrderInput| {
            let services = Arc::clone(&services);
            async move { services.call(&ctx, input).await }
        });
    }
    builder
}

/// What the activities read; each has its own part of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OrderInput {
    order_id: Option<String>,
    amount: Option<f64>,
    items: Vec<Item>,
    fail: Option<BTreeMap<String, Misbehaviour>>,
}

#[derive(Debug, Deserialize)]
struct Item {
    #[serde(default)]
    quantity: u32,
    #[serde(default)]
    price: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Misbehaviour {
    Failed,
    Unknown,
    Flaky,
    Slow,
    Panic,
    Crash,
}

struct Services {
    options: OrderOptions,
    done: Mutex<Done>,
}

/// Answers by idempotency key, the oldest forgotten first.
#[derive(Default)]
struct Done {
    answers: HashMap<Arc<str>, Arc<Value>>,
    order: VecDeque<Arc<str>>,
}

impl Done {
    fn remember(&mut self, key: &str, answer: &Arc<Value>, limit: usize) {
        let key: Arc<str> = Arc::from(key);
        self.answers.insert(Arc::clone(&key), Arc::clone(answer));
        self.order.push_back(key);
        while self.order.len() > limit {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }
}

impl Services {
    async fn call(&self, ctx: &Context, input: OrderInput) -> Result<Arc<Value>, ActivityError> {
        if !self.options.work.is_zero() {
            tokio::time::sleep(self.options.work).await;
        }
        let asked = input.fail.as_ref().and_then(|fail| fail.get(ctx.activity()).copied());
        let first = ctx.attempt() == 1;
        match asked {
            Some(Misbehaviour::Failed) => return Err(self.fail(ctx).non_retryable()),
            Some(Misbehaviour::Flaky) if first => return Err(self.fail(ctx)),
            Some(Misbehaviour::Slow) if first => {
                tokio::select! {
                    () = tokio::time::sleep(self.options.slow) => {}
                    () = ctx.cancelled().cancelled() => return Err(ActivityError::cancelled()),
                }
            }
            Some(Misbehaviour::Panic) if first => panic!("{} panics, as asked", ctx.activity()),
            Some(Misbehaviour::Crash) if first && ctx.delivery() == 1 => {
                (self.options.crash)();
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let answer = self.act_once(ctx, &input);
        if asked == Some(Misbehaviour::Unknown) {
            let lost = ActivityError::unknown("answer_lost", format!("{} may be done, as asked", ctx.activity()));
            return Err(lost.non_retryable());
        }
        Ok(answer)
    }

    fn fail(&self, ctx: &Context) -> ActivityError {
        self.record(ctx, Effect::Failed);
        ActivityError::failed("on_request", format!("{} fails, as asked", ctx.activity()))
    }

    fn record(&self, ctx: &Context, effect: Effect) {
        if let Some(recorder) = &self.options.recorder {
            recorder(ctx, effect);
        }
    }

    fn act_once(&self, ctx: &Context, input: &OrderInput) -> Arc<Value> {
        let key = ctx.idempotency_key();
        let (answer, effect) = {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            match done.answers.get(key) {
                Some(answer) => (Arc::clone(answer), Effect::Repeated),
                None => {
                    let answer = Arc::new(self.answer(ctx, input));
                    done.remember(key, &answer, self.options.remember);
                    (answer, Effect::Applied)
                }
            }
        };
        self.record(ctx, effect);
        answer
    }

    fn answer(&self, ctx: &Context, input: &OrderInput) -> Value {
        // The end of a UUIDv7 is its random part: names made of it are unique, and the same at every attempt.
        let run_id = ctx.run_id();
        let tail = run_id.get(run_id.len().saturating_sub(12)..).unwrap_or(run_id);
        let mut answer = match ctx.activity() {
            "create-order" => {
                let total: f64 = input
                    .items
                    .iter()
                    .map(|item| f64::from(item.quantity) * item.price)
                    .sum();
                json!({ "order_id": format!("ord-{tail}"), "total": total })
            }
            "process-payment" => json!({ "payment_id": format!("pay-{tail}"), "amount": input.amount }),
            "reserve-inventory" => json!({ "reservation_id": format!("res-{tail}") }),
            "send-confirmation" => json!({ "message_id": format!("msg-{tail}") }),
            // The undos. Without an order id, what was to be undone never answered; the key alone says which it is.
            _ => json!({ "undone": true, "order_id": input.order_id }),
        };
        self.fill_up(&mut answer);
        answer
    }

    fn fill_up(&self, answer: &mut Value) {
        if self.options.result_bytes == 0 {
            return;
        }
        let missing = self
            .options
            .result_bytes
            .saturating_sub(answer.to_string().len() + r#","note":"""#.len());
        if let Value::Object(fields) = answer {
            fields.insert("note".to_owned(), Value::String(".".repeat(missing)));
        }
    }
}
