//! What goes on beside the sagas of a seed: schedules, triggers and their stream, starts of workflow ids that others have, and
//! what operators allow the queues.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use knarr_core::ids::{Namespace, QueueName, RunId};
use knarr_core::run::State;
use knarr_core::run::schedule::workflow_id as schedule_id;
use knarr_core::run::trigger::workflow_id as trigger_id;
use knarr_core::time::Span;
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};

use super::super::line::Random;
use super::super::world::World;
use super::scenario::{Scenario, input};
use crate::bus::Headers;
use crate::store::{QueueRate, QueueRow, RunRow, Store as _};

const OVERLAPS: [&str; 6] = [
    "skip",
    "buffer_one",
    "buffer_all",
    "cancel_other",
    "terminate_other",
    "allow_all",
];
const QUEUES: [&str; 2] = ["main", "other"];
const NAMES: [&str; 2] = ["t", "u"];

/// An event as it was stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) wanted: bool,
    pub(super) readable: bool,
}

#[derive(Debug)]
pub(super) struct Again {
    /// Of its first message in the log.
    pub(super) sequence: u64,
    pub(super) conflict: &'static str,
    pub(super) reuse: &'static str,
}

pub(super) struct Beside {
    scenario: Scenario,
    schedules: Random,
    triggers: Random,
    starts: Random,
    limits: Random,
    asked: u64,
    pub(super) stored: Vec<Stored>,
    /// By name, whether a filter holds back what is not wanted.
    pub(super) filters: BTreeMap<&'static str, bool>,
    pub(super) again: BTreeMap<String, Again>,
}

impl Beside {
    pub(super) fn new(scenario: Scenario, world: &World) -> Self {
        let random = |salt| Random::new(scenario.seed ^ salt);
        let triggers = random(0x7212);
        if scenario.has("triggers") {
            world.bus.make_stream("S");
        }
        Self {
            scenario,
            schedules: random(0x5C4E),
            filters: NAMES.into_iter().map(|name| (name, triggers.one_in(2))).collect(),
            triggers,
            starts: random(0x57A2),
            limits: random(0x11A1),
            asked: 0,
            stored: Vec::new(),
            again: BTreeMap::new(),
        }
    }

    /// Between two sagas.
    pub(super) async fn step(&mut self, world: &World, n: u64) {
        if self.scenario.has("schedules") && self.schedules.one_in(2) {
            self.ask_a_schedule(world).await;
        }
        if self.scenario.has("triggers") {
            if n == 0 || self.triggers.one_in(6) {
                self.ask_a_trigger(world).await;
            }
            for _ in 0..self.triggers.below(4) {
                self.store_event(world);
            }
        }
        if self.scenario.has("starts") && self.starts.one_in(2) {
            self.start_again(world, n).await;
        }
        if self.scenario.has("limits") && self.limits.one_in(6) {
            self.limit_a_queue(world).await;
        }
    }

    async fn say(&mut self, world: &World, id: &str, verb: &str, body: Value, repeats: bool) {
        self.asked += 1;
        let (request, proof) = (format!("ask-{}", self.asked), format!("{verb} default"));
        let headers = [(names::VERB, proof.as_str()), (names::REQUEST_ID, request.as_str())];
        let to = subject::run_verb("default", id, verb).unwrap();
        for _ in 0..=u32::from(repeats) {
            world.publish(&to, &headers, body.clone()).await;
        }
    }

    fn calendar(&self) -> Value {
        let random = &self.schedules;
        let pick = |of: &[&'static str]| of[usize::try_from(random.below(of.len() as u64)).unwrap()];
        let mut document = json!({
            "workflow": if random.one_in(12) { "nobody" } else { "first" },
            "every": { "every": (pick(&["2s", "3s", "5s", "20s"])), "phase": (pick(&["0s", "1s"])) },
            "overlap": (pick(&OVERLAPS)),
            "catch_up_window": (pick(&["10s", "20s"])),
            "pause_on_failure": random.one_in(4),
            "input": input(random.below(1 << 12)),
        });
        if random.one_in(6) {
            document["actions"] = json!(1 + random.below(4));
        }
        if random.one_in(4) {
            document["jitter"] = json!("1s");
        }
        document
    }

    async fn ask_a_schedule(&mut self, world: &World) {
        let id = schedule_id(["tick", "tock"][usize::try_from(self.schedules.below(2)).unwrap()]);
        let now = world.store.now().await.unwrap().to_utc();
        let ago = |seconds: u64| now - chrono::Duration::seconds(i64::try_from(seconds).unwrap());
        let random = &self.schedules;
        let overlap = OVERLAPS[usize::try_from(random.below(6)).unwrap()];
        let body = match random.below(16) {
            0..=5 => json!({ "ask": "create", "schedule": self.calendar() }),
            6 => json!({ "ask": "pause" }),
            7 | 8 => json!({ "ask": "resume" }),
            9 => json!({ "ask": "update", "schedule": self.calendar() }),
            10 => json!({ "ask": "define", "version": 1 + random.below(3), "schedule": self.calendar() }),
            11 | 12 => json!({ "ask": "trigger", "overlap": overlap }),
            13 | 14 => {
                let until = random.below(10);
                let (from, until) = (ago(until + random.below(12)), ago(until));
                json!({ "ask": "backfill", "from": from.to_rfc3339(), "until": until.to_rfc3339(), "overlap": overlap })
            }
            _ => json!({ "ask": "delete" }),
        };
        let repeats = random.one_in(3);
        self.say(world, id.as_str(), "schedule", body, repeats).await;
    }

    async fn ask_a_trigger(&mut self, world: &World) {
        let random = &self.triggers;
        let name = NAMES[usize::try_from(random.below(2)).unwrap()];
        let mut document = json!({
            "trigger": name,
            "workflow": "first",
            "stream": "S",
            "id": "${ event.data.id }",
            "from": "all",
        });
        if self.filters[name] {
            document["filter"] = json!("event.data.wanted");
        }
        match random.below(4) {
            0 => document["signal"] = json!("go"),
            1 => {
                document["signal"] = json!("go");
                document["start"] = json!(true);
            }
            2 => document["id_conflict"] = json!("use_existing"),
            _ => {}
        }
        match random.below(4) {
            0 => document["debounce"] = json!({ "quiet": "500ms", "max_wait": "2s" }),
            1 => document["batch"] = json!({ "max": 1 + random.below(4), "wait": "1s" }),
            _ => {}
        }
        let body = match random.below(8) {
            0 => json!({ "ask": "pause" }),
            1 | 2 => json!({ "ask": "resume" }),
            _ => json!({ "ask": "define", "trigger": document, "version": 1 + random.below(5) }),
        };
        let repeats = random.one_in(3);
        self.say(world, trigger_id("first", name).as_str(), "trigger", body, repeats)
            .await;
    }

    fn store_event(&mut self, world: &World) {
        let random = &self.triggers;
        let (wanted, readable) = (!random.one_in(3), !random.one_in(12));
        let mut data = input(random.below(1 << 12));
        // The first saga has been started before anything is stored.
        data["id"] = json!(["t-0", "t-1", "t-2", "o-0"][usize::try_from(random.below(4)).unwrap()]);
        data["wanted"] = json!(wanted);
        let body = if readable {
            data.to_string()
        } else {
            "{ no json".to_owned()
        };
        let subject = format!("s.{}", random.below(3));
        world.bus.store_event("S", &subject, Headers::new(), Bytes::from(body));
        self.stored.push(Stored { wanted, readable });
    }

    /// Of an id that a saga has, or that nobody else but these has.
    async fn start_again(&mut self, world: &World, n: u64) {
        let random = &self.starts;
        let id = match random.below(3) {
            0 => format!("o-{}", random.below(n + 1)),
            _ => format!("q-{}", random.below(2)),
        };
        let conflicts = ["queue", "queue", "queue", "fail", "use_existing", "terminate_existing"];
        let conflict = conflicts[usize::try_from(random.below(6)).unwrap()];
        let reuse = match random.below(6) {
            0 if conflict != "terminate_existing" => "allow_duplicate_failed_only",
            1 if conflict != "terminate_existing" => "reject_duplicate",
            _ => "allow_duplicate",
        };
        let request = format!("again-{}", self.again.len());
        let headers = [
            (names::REQUEST_ID, request.as_str()),
            (names::ID_CONFLICT, conflict),
            (names::ID_REUSE, reuse),
        ];
        let to = subject::start("default", &id, "first").unwrap();
        let input = input(random.below(1 << 12));
        let repeats = random.one_in(3);
        let sequence = world.publish(&to, &headers, input.clone()).await;
        if repeats {
            world.publish(&to, &headers, input).await;
        }
        let again = Again {
            sequence,
            conflict,
            reuse,
        };
        self.again.insert(request, again);
    }

    /// Nobody who came later has a workflow id while somebody is in line for it, but who has terminated the one before.
    pub(super) fn check_lines(&self, world: &World) {
        let rows = world.rows();
        let came = |row: &RunRow| self.again.get(row.request_id.as_ref()?.as_str());
        for queued in rows.iter().filter(|row| row.is_queued()) {
            let Some(first) = came(queued) else { continue };
            let has_it = rows
                .iter()
                .find(|row| row.workflow_id == queued.workflow_id && row.has_id());
            // Of a run that has continued as new nothing says when it came.
            if let Some(other) = has_it
                .and_then(came)
                .filter(|other| other.conflict != "terminate_existing")
            {
                assert!(other.sequence < first.sequence, "{} was overtaken", queued.run_id);
            }
        }
    }

    async fn limit_a_queue(&mut self, world: &World) {
        let random = &self.limits;
        let queue = QUEUES[usize::try_from(random.below(2)).unwrap()];
        let few = |most: u64| i32::try_from(1 + random.below(most)).unwrap();
        let max_concurrent = (!random.one_in(3)).then(|| few(4));
        let rate = random.one_in(2).then(|| QueueRate {
            limit: few(10),
            per: Span::from_secs(1),
        });
        set_queue(world, queue, max_concurrent, rate).await;
    }

    /// Nothing more is due by itself, and nothing holds anything up.
    pub(super) async fn calm(&mut self, world: &World) {
        for queue in QUEUES.into_iter().filter(|_| self.scenario.has("limits")) {
            set_queue(world, queue, None, None).await;
        }
        self.tell_all(world, "pause", "resume").await;
    }

    async fn tell_all(&mut self, world: &World, schedules: &str, triggers: &str) {
        for row in open_actors(world).await {
            let id = row.workflow_id.as_str().to_owned();
            let (verb, body) = match row.workflow.as_str() {
                "$schedule" => ("schedule", json!({ "ask": schedules })),
                _ if triggers == "delete" => ("trigger", json!({ "ask": "define", "version": 99 })),
                _ => ("trigger", json!({ "ask": triggers })),
            };
            self.say(world, &id, verb, body, false).await;
        }
    }

    /// Whether nothing is on its way of any of them.
    pub(super) async fn rests(&self, world: &World) -> bool {
        for row in open_actors(world).await {
            let state = world.state(row.run_id).await;
            let is_idle = match (state.schedule(), state.trigger()) {
                (Some(schedule), _) => {
                    schedule.paused.is_some() && schedule.running.is_empty() && schedule.backfills.is_empty()
                }
                (_, Some(trigger)) => {
                    let place = trigger.place().map_or(0, |place| place.sequence);
                    let none = trigger.sent.is_empty() && trigger.held.is_empty() && trigger.gathered.is_empty();
                    none && trigger.paused.is_none() && self.may_stand_at(&trigger.spec.name, place)
                }
                _ => false,
            };
            if !is_idle || state.wake_at().is_some() {
                return false;
            }
        }
        true
    }

    /// Nothing behind the place counts.
    fn may_stand_at(&self, name: &str, place: u64) -> bool {
        let behind = self.stored.iter().skip(usize::try_from(place).unwrap());
        let mut behind = behind;
        behind.all(|stored| !self.counts(name, stored))
    }

    pub(super) fn counts(&self, name: &str, stored: &Stored) -> bool {
        stored.wanted || !stored.readable || !self.filters[name]
    }

    /// They go; all there ever were.
    pub(super) async fn dismiss(&mut self, world: &World) -> Vec<RunId> {
        self.tell_all(world, "delete", "delete").await;
        for _ in 0..200 {
            if open_actors(world).await.is_empty() && world.is_quiet() {
                let is_actor = |row: &&RunRow| row.workflow.as_str().starts_with('$');
                let dump = world.store.dump(|_| 0);
                return dump.runs.iter().filter(is_actor).map(|row| row.run_id).collect();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("never deleted: {:?}", open_actors(world).await);
    }

    pub(super) async fn states(&self, world: &World) -> Vec<State> {
        let mut states = Vec::new();
        for row in open_actors(world).await {
            states.push(world.state(row.run_id).await);
        }
        states
    }
}

async fn open_actors(world: &World) -> Vec<RunRow> {
    let namespace = Namespace::new("default");
    let mut rows = world.store.list_schedules(&namespace, None, 1_000).await.unwrap();
    rows.extend(world.store.list_triggers(&namespace, None, 1_000).await.unwrap());
    rows
}

async fn set_queue(world: &World, queue: &str, max_concurrent: Option<i32>, rate: Option<QueueRate>) {
    let row = QueueRow {
        namespace: Namespace::new("default"),
        queue: QueueName::new(queue),
        max_concurrent,
        rate,
        ack_wait: None,
    };
    world.store.set_queue(&row).await.unwrap();
}
