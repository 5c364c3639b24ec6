//! Everything at once, as a seed has it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use knarr_core::ids::RunId;
use knarr_core::limit::Row;
use knarr_core::run::limits::RunLimits;
use knarr_core::run::{State, Status, Waiting};
use knarr_core::simulation::Family;
use knarr_core::simulation::case::Fate;
use knarr_core::time::Span;
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};

use super::super::line::Random;
use super::super::world::{Replica, World};
use super::account;
use super::asked::Asked;
use super::beside::Beside;
use super::fates::anybody;
use super::witness::Witness;
use crate::store::{PermitRow, RunRow, Store as _};

/// What can be left out, each by itself.
pub(super) const FAULTS: [&str; 18] = [
    "workers",
    "deaths",
    "stalls",
    "commits",
    "reads",
    "publications",
    "direct",
    "full",
    "disconnects",
    "clock",
    "latency",
    "operators",
    "silence",
    // And what goes on beside the sagas.
    "schedules",
    "triggers",
    "starts",
    "limits",
    "handlers",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) sagas: u64,
    /// One bit for each of [`FAULTS`].
    pub(super) faults: u32,
}

/// What has happened.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Steps {
    pub(super) seeds: u64,
    pub(super) runs: u64,
    /// Inputs that were taken and committed.
    pub(super) transitions: u64,
    /// Calls of store and bus.
    pub(super) calls: u64,
    /// Occurrences of schedules that were started, events of triggers that counted, starts of ids that others had.
    pub(super) occurrences: u64,
    pub(super) events: u64,
    pub(super) starts: u64,
    /// Updates that were done, and told of.
    pub(super) updates: u64,
}

impl Steps {
    pub(super) fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.runs += other.runs;
        self.transitions += other.transitions;
        self.calls += other.calls;
        self.occurrences += other.occurrences;
        self.events += other.events;
        self.starts += other.starts;
        self.updates += other.updates;
    }
}

/// Of one kind of fault: leaving another one out changes nothing about it.
struct Luck {
    random: Random,
    faults: u32,
}

impl Luck {
    fn strikes(&self, fault: &str, one_in: u64) -> bool {
        let strikes = self.random.one_in(one_in);
        let at = FAULTS.iter().position(|name| *name == fault);
        strikes && at.is_some_and(|at| self.faults & (1 << at) > 0)
    }
}

impl Scenario {
    /// Half of the faults, and never the same half.
    pub(super) fn of_seed(seed: u64) -> Self {
        let random = Random::new(seed ^ 0x51);
        let faults = u32::try_from(random.below(1 << FAULTS.len())).unwrap();
        let more = u32::try_from(random.below(1 << FAULTS.len())).unwrap();
        Self {
            seed,
            sagas: 6 + random.below(30),
            faults: if random.one_in(3) { faults | more } else { faults },
        }
    }

    pub(super) fn without(self, fault: usize) -> Self {
        Self {
            faults: self.faults & !(1 << fault),
            ..self
        }
    }

    pub(super) fn command(self) -> String {
        let Self { seed, sagas, faults } = self;
        let named = FAULTS.iter().enumerate().filter(|(at, _)| faults & (1 << at) > 0);
        let named: Vec<_> = named.map(|(_, name)| *name).collect();
        format!(
            "KNARR_SIM_SEED={seed} KNARR_SIM_SAGAS={sagas} KNARR_SIM_FAULTS={faults} .ci/simulate engine   # {}",
            named.join(", ")
        )
    }

    pub(super) fn has(self, fault: &str) -> bool {
        let at = FAULTS.iter().position(|name| *name == fault);
        at.is_some_and(|at| self.faults & (1 << at) > 0)
    }

    pub(super) async fn run(self) -> Steps {
        let seed = self.seed;
        let mut world = World::new(seed).await;
        let family = family(seed);
        for text in &family.texts {
            world.register(text).await;
        }
        let witness = Witness::new(&family.texts);
        // Where none that was drawn takes a while, the one in their place may have nothing that is started here.
        if !family.texts.iter().any(|text| text.contains(r#""workflow": "first""#)) {
            return Steps::default();
        }
        self.set_up(&mut world);
        let misfortune = if self.has("workers") {
            [3, 15, 40][seed as usize % 3]
        } else {
            0
        };
        for queue in ["main", "other"] {
            world.work_at(queue, anybody(seed, misfortune));
        }
        let mut beside = Beside::new(self, &world);
        let mut asked = Asked::new(self);
        let luck = Luck {
            random: Random::new(seed ^ 0x77),
            faults: self.faults,
        };
        let inputs = Random::new(seed ^ 0x99);
        let mut running = vec![("r0".to_owned(), world.replica("r0"))];
        for n in 0..self.sagas {
            start(&world, &inputs, n).await;
            beside.step(&world, n).await;
            asked.step(&world, n).await;
            self.strike(&mut world, &luck, &mut running, n).await;
            if n % 8 == 7 {
                world.check().await;
                witness.check(&world).await;
            }
            for _ in 0..luck.random.below(4) {
                tokio::time::sleep(Duration::from_millis(luck.random.below(300))).await;
                witness.moment(&world);
                beside.check_lines(&world);
            }
        }
        let (actors, updates) = self.end(&mut world, (&mut beside, &mut asked), &witness, running).await;
        let transitions = witness.check(&world).await;
        let (occurrences, events, starts) = account::check(&world, &beside, &actors).await;
        Steps {
            seeds: 1,
            runs: world.rows().len() as u64,
            transitions,
            calls: world.calls(),
            occurrences,
            events,
            starts,
            updates,
        }
    }

    fn set_up(self, world: &mut World) {
        let random = Random::new(self.seed ^ 0xAB);
        let small = |most: u64| usize::try_from(1 + random.below(most)).unwrap();
        if random.one_in(2) {
            world.config.live_runs = small(5);
            world.config.batch_inputs = small(8);
            world.config.intake = small(16);
        }
        if random.one_in(3) {
            // Next to everything is too large, or too slow, for a look-up.
            world.config.huge_run_bytes = 200 + random.below(2_000);
            world.config.look_up_bytes = 1 + random.below(4_000);
            world.config.slow_look_up = Duration::from_millis(random.below(60));
        }
        if random.one_in(3) {
            world.config.deadline_page = small(4);
        }
        if random.one_in(4) {
            world.config.run_limits = RunLimits {
                events: Some(30 + u32::try_from(random.below(200)).unwrap()),
                history_bytes: random.one_in(2).then(|| 3_000 + random.below(20_000)),
                pending: random.one_in(2).then(|| 1 + u32::try_from(random.below(6)).unwrap()),
            };
        }
        world.config.snapshot_every = u32::try_from(2 + random.below(6)).unwrap();
        let weather = Arc::clone(&world.weather);
        let rare = |fault: &str, n: u64| {
            let often = n + random.below(n);
            if self.has(fault) { often } else { 0 }
        };
        let latency = [5, 30, 150][usize::try_from(random.below(3)).unwrap()];
        weather
            .latency_ms
            .store(if self.has("latency") { latency } else { 1 }, Ordering::SeqCst);
        weather.lose_commit.store(rare("commits", 8), Ordering::SeqCst);
        weather.fail_read.store(rare("reads", 8), Ordering::SeqCst);
        weather
            .lose_publication
            .store(rare("publications", 8), Ordering::SeqCst);
        let every = |n| u32::try_from(rare("direct", n)).unwrap();
        world.bus.set_direct_faults(crate::bus::memory::DirectFaults {
            drop_every: every(6),
            duplicate_every: every(6),
            delay_every: every(6),
        });
    }

    /// What befalls the cluster between two starts.
    async fn strike(self, world: &mut World, luck: &Luck, running: &mut Vec<(String, Replica)>, n: u64) {
        let stream = subject::task_stream("default").unwrap();
        let who = format!("o-{}", luck.random.below(n + 1));
        if luck.random.one_in(2) {
            signal(world, &who, luck.random.below(3), luck.random.below(20)).await;
        }
        if luck.strikes("operators", 10) {
            world.verb(&who, "cancel", &[]).await;
        }
        if luck.strikes("operators", 30) {
            world.verb(&who, "terminate", &[]).await;
        }
        if luck.strikes("operators", 8) {
            // Refused where there is no such version, or the run has come too far.
            let to = [(names::WORKFLOW, "first"), (names::VERSION, "2")];
            world.verb(&who, "migrate", &to).await;
        }
        if luck.strikes("operators", 12) {
            let to = json!({ "events": 40 + luck.random.below(400), "pending": 2 + luck.random.below(20) });
            world.verb_with(&who, "limit", &[], to).await;
        }
        if luck.strikes("silence", 10) {
            // Nobody answers questions about queues.
            *world.weather.mute.lock().unwrap() = Some("default");
        } else if luck.random.one_in(3) {
            *world.weather.mute.lock().unwrap() = None;
        }
        if luck.strikes("full", 12) {
            world.bus.set_full(&stream, true);
        } else if luck.random.one_in(4) {
            world.bus.set_full(&stream, false);
        }
        if luck.strikes("disconnects", 20) {
            world.bus.set_connected(false);
            tokio::time::sleep(Duration::from_millis(luck.random.below(4_000))).await;
            world.bus.set_connected(true);
        }
        if luck.strikes("clock", 10) {
            // The database's clock leaps ahead, by seconds or, with NATS's, by hours, or goes back a little.
            match luck.random.below(4) {
                0 => world.leap(3_000),
                1 => world.leap(20_000),
                2 => world.leap(-1_200),
                _ => world.leap_together(7_200_000),
            }
        }
        for index in (0..running.len()).rev() {
            if running[index].1.has_ended() {
                let (name, _) = running.remove(index);
                running.push((name.clone(), world.replica(&name)));
            } else if luck.strikes("deaths", 20) {
                running[index].1.kill();
            } else if luck.strikes("stalls", 12) {
                // Long enough for its lease to end: somebody else owns its partitions when it goes on.
                running[index]
                    .1
                    .line
                    .stall(Duration::from_millis(1_000 + luck.random.below(6_000)));
            } else if running.len() > 1 && luck.strikes("deaths", 25) {
                running.remove(index).1.stop().await;
            }
        }
        let name = format!("r{}", luck.random.below(3));
        if luck.random.one_in(6) && running.iter().all(|(known, _)| *known != name) {
            let dies_at = luck.random.below(400);
            let dies_at = if self.has("deaths") { dies_at } else { 0 };
            running.push((name.clone(), world.replica_dying_at(&name, dies_at)));
        }
    }

    /// The weather clears, and everything comes to its end.
    async fn end(
        self,
        world: &mut World,
        (beside, asked): (&mut Beside, &mut Asked),
        witness: &Witness,
        mut running: Vec<(String, Replica)>,
    ) -> (Vec<RunId>, u64) {
        world.bus.set_full(&subject::task_stream("default").unwrap(), false);
        let weather = &world.weather;
        for unlucky in [&weather.lose_commit, &weather.fail_read, &weather.lose_publication] {
            unlucky.store(0, Ordering::SeqCst);
        }
        weather.latency_ms.store(1, Ordering::SeqCst);
        world.bus.set_direct_faults(Default::default());
        if running.iter().all(|(_, replica)| replica.has_ended()) {
            running.push(("last".to_owned(), world.replica("last")));
        }
        running.push(("r9".to_owned(), world.replica("r9")));
        *world.weather.mute.lock().unwrap() = None;
        for round in 0..1_500 {
            // Whoever was started meanwhile by an old copy of what was asked is told as well.
            if round % 20 == 0 {
                beside.calm(world).await;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            witness.moment(world);
            beside.check_lines(world);
            // A closed run may still owe a message to another one.
            let rests = world.rows().iter().all(|row| is_closed(row) && row.wake_at.is_none());
            if rests && world.is_quiet() && beside.rests(world).await {
                break;
            }
            if round == 1_499 {
                let (open, dump) = (open_states(world).await, world.store.dump(|_| 0));
                let woken: Vec<_> = world.rows().into_iter().filter(|row| row.wake_at.is_some()).collect();
                panic!(
                    "never closed: actors {:#?}, runs {open:#?}\nto be woken: {woken:#?}\ndeferred: {:?}\ncommits: {:?}",
                    beside.states(world).await,
                    dump.deferred,
                    dump.commits
                );
            }
            self.help(world, round).await;
        }
        world.quiet().await;
        let actors = beside.dismiss(world).await;
        let updates = asked.finish(world, &running).await;
        for n in 0..self.sagas {
            let request = format!("request-{n}");
            let mut rows = world.rows_of(&format!("o-{n}"));
            rows.retain(|row| row.request_id.as_ref().is_some_and(|id| id.as_str() == request));
            assert_eq!(rows.len(), 1, "{request} was taken {} times", rows.len());
        }
        let stopped_at = world.store.now().await.unwrap();
        for (_, replica) in running {
            if !replica.has_ended() {
                replica.stop().await;
            }
        }
        world
            .until("nothing owed", |world| world.store.dump(|_| 0).commits.is_empty())
            .await;
        let mut permits = world.store.dump(|_| 0).permits;
        // The pace of a rate is forgotten once it has passed, and that is not waited for here.
        let is_ahead = |row: &PermitRow| match serde_json::from_str(&row.body) {
            Ok(Row::Pace(point)) => point.plus(Span::from_secs(1)) > stopped_at,
            _ => false,
        };
        permits.retain(|row| !is_ahead(row));
        assert!(permits.is_empty(), "nobody needs these: {permits:#?}");
        (actors, updates)
    }

    /// Signals for who waits, and an end for who waits for an operator.
    async fn help(self, world: &mut World, round: u64) {
        for row in world.rows().into_iter().filter(|row| !is_closed(row)) {
            let state = world.state(row.run_id).await;
            let id = row.workflow_id.as_str().to_owned();
            let waits = |waiting: &Waiting<'_>| matches!(waiting, Waiting::Signal { .. });
            let parked = state.status() == Status::Parked && round > 2;
            if parked && (state.parked_reason().is_some() || round.is_multiple_of(2)) {
                self.decide(world, &row, &state, round).await;
            } else if state.waiting().any(|(_, waiting)| waits(&waiting)) {
                signal(world, &id, 1, 1_000 + round).await;
            } else if parked {
                self.decide(world, &row, &state, round).await;
            }
        }
        // What waits for long waits no longer. Not too often: a leap ends all leases, and timeouts wait for a while then.
        if round % 15 == 14 {
            world.leap_together(120_000);
        }
    }
}

impl Scenario {
    /// An operator does something about a run that is parked, or has something parked in it.
    async fn decide(self, world: &World, row: &RunRow, state: &State, round: u64) {
        // By its run: the workflow id of a child that is undone after its end is free.
        let (id, run) = (row.workflow_id.as_str(), row.run_id.to_string());
        let of_run = [
            (names::RUN_ID, run.as_str()),
            (names::BY, "ann"),
            (names::REASON, "by hand"),
        ];
        let undo = state.parked_undos().next().map(|entry| (entry.step.clone(), "undo"));
        let parked = state.parked_steps().next().map(|(step, _)| (step.clone(), "do"));
        let turn = (self.seed + round) % 7;
        let Some((step, direction)) = undo.or(parked).filter(|_| state.parked_reason().is_none()) else {
            match turn {
                0 if self.has("operators") => world.verb(id, "terminate", &of_run).await,
                _ => world.verb_with(id, "parked.retry", &of_run, Value::Null).await,
            };
            return;
        };
        let [run, by, reason] = of_run;
        let of_step = [
            run,
            by,
            reason,
            (names::STEP, step.as_str()),
            (names::DIRECTION, direction),
        ];
        let (action, body) = match turn {
            _ if !self.has("operators") || round > 200 => ("terminate", Value::Null),
            0 => ("parked.skip", Value::Null),
            1 => ("parked.done", Value::Null),
            2 if direction == "do" => ("parked.done", json!({ "id": "by hand" })),
            3 => ("parked.edit", json!("edited")),
            _ => ("parked.retry", Value::Null),
        };
        match action {
            "terminate" => world.verb(id, action, &of_run).await,
            _ => world.verb_with(id, action, &of_step, body).await,
        };
    }
}

/// As its row says it: a child that is told to undo is open again, and keeps its `closed_at`.
fn is_closed(row: &RunRow) -> bool {
    let statuses = Status::ALL.into_iter();
    statuses
        .filter(|status| status.is_closed())
        .any(|status| status.as_str() == row.status)
}

async fn open_states(world: &World) -> Vec<State> {
    let mut open = Vec::new();
    for row in world.rows().iter().filter(|row| !is_closed(row)) {
        open.push(world.state(row.run_id).await);
    }
    open
}

/// One of those whose runs take a while.
fn family(seed: u64) -> Family {
    let busy = |family: &Family, seed| {
        let quiet = Fate {
            ops: Vec::new(),
            ..Fate::of_seed(seed, 0)
        };
        let ended = family.run(&quiet);
        ended.transitions > 12 && ended.transitions < 300
    };
    let mut seeds = (0..40).map(|more| seed * 40 + more);
    let seed = seeds.find(|seed| busy(&Family::of_seed(*seed), *seed));
    Family::of_seed(seed.unwrap_or(0))
}

async fn start(world: &World, inputs: &Random, n: u64) {
    let id = format!("o-{n}");
    let request = format!("request-{n}");
    let input = input(inputs.below(1 << 12));
    let to = subject::start("default", &id, "first").unwrap();
    let repeats = if inputs.one_in(4) { 2 } else { 1 };
    let first = [(names::REQUEST_ID, request.as_str()), (names::VERSION, "1")];
    // Whoever names no version starts the highest.
    let headers = &first[..if inputs.one_in(2) { 1 } else { 2 }];
    for _ in 0..repeats {
        world.publish(&to, headers, input.clone()).await;
    }
}

async fn signal(world: &World, id: &str, body: u64, request: u64) {
    let to = subject::signal("default", id, "go").unwrap();
    let request = format!("signal-{request}");
    world.publish(&to, &[(names::REQUEST_ID, &request)], json!(body)).await;
}

/// As the simulation of core has it.
pub(super) fn input(which: u64) -> Value {
    let mut input = json!({
        "id": format!("x-{which}"),
        "n": which % 5,
        "left": (which / 5) % 3,
        "flag": which & 8 > 0,
        "items": (0..(which / 16) % 4).collect::<Vec<_>>(),
    });
    if which & 256 > 0 {
        input["rare"] = json!({ "id": format!("r-{which}"), "items": [1, "two"] });
    }
    input
}
