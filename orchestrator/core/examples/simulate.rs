//! Runs the simulation of core over a range of seeds, on as many threads as are asked for, and says where to go on.
//!
//! ```sh
//! cargo run --profile sim -p knarr-core --features simulation --example simulate -- --seeds 0..1000000 --threads 2
//! ```
//!
//! `--steps N` and `--seconds N` end it earlier; `--seed S` replays one seed, `--case FILE` a case that was printed. Every
//! violation is printed with the command that repeats it and a case made as small as it gets; the last line says from which seed
//! to resume. Exit status: 0 = no violation, 1 = some, 2 = the command line.
#![expect(clippy::unwrap_used, reason = "a command for developers")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use knarr_core::simulation::case::{FATES, Fate};
use knarr_core::simulation::shrink::shrink;
use knarr_core::simulation::{Case, Ended, Family};

thread_local! {
    static LAST: RefCell<(String, String)> = RefCell::default();
}

struct Options {
    seeds: Range<u64>,
    threads: u64,
    steps: u64,
    time: Duration,
    case: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seeds: 0..u64::MAX,
        threads: 1,
        steps: u64::MAX,
        time: Duration::MAX,
        case: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next().ok_or(format!("`{name}` needs a value"))?;
        let number = |text: &str| {
            text.replace('_', "")
                .parse::<u64>()
                .map_err(|_| format!("`{text}` is no number"))
        };
        match name.as_str() {
            "--seeds" => {
                let (first, end) = value.split_once("..").ok_or("--seeds FIRST..END, or FIRST..")?;
                options.seeds = number(first)?..if end.is_empty() { u64::MAX } else { number(end)? };
            }
            "--seed" => options.seeds = number(&value)?..number(&value)? + 1,
            "--threads" => options.threads = number(&value)?.max(1),
            "--steps" => options.steps = number(&value)?,
            "--seconds" => options.time = Duration::from_secs(number(&value)?),
            "--case" => options.case = Some(value),
            _ => return Err(format!("there is no `{name}`")),
        }
    }
    Ok(options)
}

#[derive(Default)]
struct Tally {
    steps: AtomicU64,
    transitions: AtomicU64,
    runs: AtomicU64,
    fates: AtomicU64,
    violations: AtomicU64,
    next: AtomicU64,
    under_way: Mutex<BTreeSet<u64>>,
}

impl Tally {
    fn count(&self, ended: &Ended) {
        self.steps.fetch_add(ended.inputs, Ordering::Relaxed);
        self.transitions.fetch_add(ended.transitions, Ordering::Relaxed);
        self.runs.fetch_add(ended.runs.len() as u64, Ordering::Relaxed);
        self.fates.fetch_add(1, Ordering::Relaxed);
    }

    /// All seeds below it are done.
    fn resume_from(&self) -> u64 {
        let under_way = self.under_way.lock().unwrap();
        under_way.first().copied().unwrap_or(self.next.load(Ordering::SeqCst))
    }

    fn say(&self, began: Instant, what: &str) {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let steps = load(&self.steps);
        println!(
            "{what}: {steps} steps ({} transitions of {} runs, {} fates) in {:.0} s, {:.2} million steps a minute, {} violations; resume with --seeds {}..",
            load(&self.transitions),
            load(&self.runs),
            load(&self.fates),
            began.elapsed().as_secs_f64(),
            steps as f64 / 1e6 / (began.elapsed().as_secs_f64() / 60.0),
            load(&self.violations),
            self.resume_from(),
        );
    }
}

fn attempt(family: &Family, fate: &Fate) -> Result<Ended, (String, String)> {
    catch_unwind(AssertUnwindSafe(|| family.run(fate))).map_err(|_| LAST.with_borrow(Clone::clone))
}

fn violated(seed: u64, number: u64, family: &Family, fate: &Fate, (place, message): &(String, String)) {
    let cut: String = message.chars().take(2_000).collect();
    println!("VIOLATION seed {seed}, fate {number}, at {place}: {cut}");
    println!("  cargo run --profile sim -p knarr-core --features simulation --example simulate -- --seed {seed}");
    let fails = |family: &Family, fate: &Fate| attempt(family, fate).is_err_and(|(at, _)| at == *place);
    let began = Instant::now();
    let goes_on = || began.elapsed() < Duration::from_secs(60);
    let (family, fate) = shrink(family, fate, goes_on, &fails);
    let message = attempt(&family, &fate).map_or_else(|(_, message)| message, |_| String::new());
    println!(
        "  as small as it gets: {}",
        message.chars().take(4_000).collect::<String>()
    );
    println!("{}", serde_json::to_string(&family.case(&fate)).unwrap());
}

fn work(tally: &Tally, options: &Options, began: Instant) {
    loop {
        let seed = {
            let mut under_way = tally.under_way.lock().unwrap();
            let seed = tally.next.load(Ordering::SeqCst);
            let over = tally.steps.load(Ordering::Relaxed) >= options.steps || began.elapsed() >= options.time;
            if seed >= options.seeds.end || over {
                return;
            }
            tally.next.store(seed + 1, Ordering::SeqCst);
            under_way.insert(seed);
            seed
        };
        let family = Family::of_seed(seed);
        for number in 0..FATES {
            let fate = Fate::of_seed(seed, number);
            match attempt(&family, &fate) {
                Ok(ended) => tally.count(&ended),
                Err(told) => {
                    // One a family is enough to look at.
                    tally.violations.fetch_add(1, Ordering::Relaxed);
                    violated(seed, number, &family, &fate, &told);
                    break;
                }
            }
        }
        tally.under_way.lock().unwrap().remove(&seed);
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &options.case {
        let case: Case = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let ended = case.run();
        for (status, history) in ended.runs {
            println!("{status}\n{}", history.join("\n"));
        }
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or_default().to_owned();
        LAST.set((place, message));
    }));
    let tally = Tally::default();
    tally.next.store(options.seeds.start, Ordering::SeqCst);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads)
            .map(|_| scope.spawn(|| work(&tally, &options, began)))
            .collect();
        let mut said = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            if said.elapsed() > Duration::from_secs(30) {
                said = Instant::now();
                tally.say(began, "checkpoint");
            }
        }
    });
    tally.say(began, "done");
    let violations = tally.violations.load(Ordering::Relaxed);
    if violations > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
