//! Draws a definition: every kind of step, nested as deep as the language allows, within a budget of steps that may run.

mod activity;

use super::draft::{Body, Draft, Handled, Handler, Join, Kind, OnTimeout, Places, Step, Wait};
use super::words::Words;

/// Names of the definitions of a family: each calls later ones alone, so that no family is endless.
pub const NAMES: [&str; 3] = ["first", "second", "third"];

/// What may be handled, and how often it is.
const HANDLED: [(Handled, &str, u32); 4] = [
    (Handled::Signal, "stop", 3),
    (Handled::Update, "change", 3),
    (Handled::Signal, "note", 8),
    (Handled::Update, "check", 8),
];

/// Bodies around a step.
const DEEPEST: u32 = 10;

/// Steps of a second version have ids from here on, those of its handlers from the other place on.
const SECOND: u32 = 1_000;
const SECOND_BESIDE: u32 = 2_000;

/// The definitions of a family. The first is the one that is started; second versions of some follow.
pub fn family(words: &mut Words) -> Vec<Draft> {
    let count = 1 + words.below(3) as usize;
    let mut drafts: Vec<Draft> = (0..count).map(|index| draft(words, index, count)).collect();
    for index in 0..count {
        if words.one_in(4) {
            let other = other_version(words, &drafts[index], &NAMES[index + 1..count]);
            drafts.push(other);
        }
    }
    drafts
}

/// The same as far as some place, so that runs that have not come further may move to it.
fn other_version(words: &mut Words, draft: &Draft, callees: &[&'static str]) -> Draft {
    let mut other = Draft {
        version: 2,
        ..draft.clone()
    };
    if words.one_in(6) {
        other.sequential = !other.sequential;
    }
    if words.one_in(6) {
        other.attempts = Some(2);
    }
    if words.one_in(4) {
        other.places = words.one_in(2).then(|| places(words));
    }
    go_another_way(words, &mut other.steps, SECOND, callees);
    if let Some(last) = other.handlers.last_mut() {
        match words.below(4) {
            0 => drop(other.handlers.pop()),
            1 if !last.steps.is_empty() => go_another_way(words, &mut last.steps, SECOND_BESIDE, &[]),
            2 => last.schema = !last.schema,
            _ => {}
        }
    }
    if words.one_in(6) {
        other.queries = !other.queries;
    }
    other
}

/// From some place on, here or in the last container.
fn go_another_way(words: &mut Words, body: &mut Body, next: u32, callees: &[&'static str]) {
    if words.one_in(2)
        && let Some(last) = body.last_mut()
    {
        let mut inner = last.kind.bodies_mut();
        if !inner.is_empty() {
            let at = words.below(u32::try_from(inner.len()).unwrap()) as usize;
            return go_another_way(words, inner.swap_remove(at), next, callees);
        }
    }
    let keep = words.below(u32::try_from(body.len()).unwrap() + 1) as usize;
    body.truncate(keep);
    let mut pen = Pen {
        budget: 3,
        callees,
        calls: 0,
        next,
        deep: false,
        items: Vec::new(),
        words,
    };
    let more = pen.body(DEEPEST, 1);
    body.extend(more);
}

fn draft(words: &mut Words, index: usize, count: usize) -> Draft {
    let mut pen = Pen {
        budget: [4 + words.below(60), 3 + words.below(10), 2 + words.below(5)][index].cast_signed(),
        callees: &NAMES[index + 1..count],
        calls: 0,
        next: 0,
        deep: words.one_in(6),
        items: Vec::new(),
        words,
    };
    let steps = pen.body(0, 1);
    let mut handlers = Vec::new();
    for (of, name, one_in) in HANDLED {
        if pen.words.one_in(one_in) {
            handlers.push(pen.handler(of, name));
        }
    }
    Draft {
        name: NAMES[index],
        version: 1,
        steps,
        handlers,
        queries: words.one_in(3),
        timeout_secs: words.one_in(4).then(|| 1 + words.below(300)),
        sequential: words.one_in(4),
        halts: words.one_in(4),
        search_attribute: words.one_in(4),
        output: words.one_in(2),
        attempts: words.one_in(4).then(|| 1 + words.below(3)),
        places: words.one_in(5).then(|| places(words)),
        priority: words.one_in(10).then(|| 1 + words.below(5)),
    }
}

/// A run that others wait for is not held up by those: a family calls later definitions alone.
fn places(words: &mut Words) -> Places {
    Places {
        limit: 1 + words.below(3),
        keyed: words.one_in(2),
        on_conflict: words.pick(&["queue", "queue", "reject", "cancel_running", "skip"]),
    }
}

struct Pen<'w> {
    words: &'w mut Words,
    /// Steps that may yet run; those in a loop count as often as it may go round.
    budget: i32,
    callees: &'w [&'static str],
    calls: u32,
    next: u32,
    deep: bool,
    /// Names of the loops around.
    items: Vec<String>,
}

impl Pen<'_> {
    fn body(&mut self, depth: u32, weight: i32) -> Body {
        let most = if self.deep && depth > 0 { 2 } else { 4 };
        let count = 1 + self.words.below(most);
        let mut steps = Vec::new();
        for _ in 0..count {
            steps.push(self.step(depth, weight));
            if self.budget <= 0 {
                break;
            }
        }
        steps
    }

    fn handler(&mut self, of: Handled, name: &'static str) -> Handler {
        self.budget = self.budget.max(4);
        let is_update = of == Handled::Update;
        Handler {
            of,
            name,
            schema: !self.words.one_in(3),
            steps: if is_update && self.words.one_in(6) {
                Vec::new()
            } else {
                self.body(DEEPEST - 2, 3)
            },
            validate: self
                .words
                .pick(&[
                    None,
                    Some("update < 2 or vars.v is defined"),
                    Some("'no' if update == 1 else true"),
                ])
                .filter(|_| is_update),
            output: self
                .words
                .pick(&[
                    None,
                    Some("${ [update, vars.v | default(none)] }"),
                    Some("${ [update, vars.v | default(none)] }"),
                    Some("${ input.rare.id }"),
                ])
                .filter(|_| is_update),
        }
    }

    fn id(&mut self, letter: char) -> String {
        self.next += 1;
        format!("{letter}{}", self.next)
    }

    fn step(&mut self, depth: u32, weight: i32) -> Step {
        self.budget -= weight;
        let holds = if self.deep { 85 } else { 40 };
        let kind = if depth < DEEPEST && self.budget > 0 && self.words.below(100) >= 100 - holds {
            self.container(depth, weight)
        } else {
            self.leaf(weight)
        };
        let letter = match &kind {
            Kind::Activity(_) => 'a',
            Kind::Set(_) => 'v',
            Kind::Parallel { .. } => 'p',
            Kind::ForEach { at_once: Some(1), .. } => 'o',
            Kind::ForEach { .. } => 'e',
            Kind::Switch { .. } => 'c',
            Kind::While { .. } => 'w',
            Kind::Try { .. } => 't',
            Kind::Scope { .. } => 's',
            Kind::Wait(_) => 'i',
            Kind::WaitFor { .. } => 'f',
            Kind::Child { .. } => 'k',
            Kind::Emit(_) => 'm',
            Kind::Fail(_) => 'x',
            Kind::Complete => 'y',
            Kind::ContinueAsNew => 'z',
        };
        let ends = matches!(kind, Kind::Fail(_) | Kind::Complete);
        let condition = match self.words.below(if ends { 4 } else { 16 }) {
            1 => Some("input.flag"),
            2 => Some("vars.v is defined"),
            3 => Some(
                self.words
                    .pick(&["input.n > 1", "not input.flag", "input.flag and input.n < 3"]),
            ),
            _ if ends => Some("input.n > 2"),
            _ => None,
        };
        let condition = match kind {
            // Less and less is left, so that no chain of runs is endless.
            Kind::ContinueAsNew => Some("input.left > 0"),
            _ => condition,
        };
        let id = self.id(letter);
        let mut step = Step { id, condition, kind };
        if let Kind::Activity(activity) = &mut step.kind {
            self.undo(&step.id, activity);
        }
        step
    }

    fn leaf(&mut self, weight: i32) -> Kind {
        match self.words.below(40) {
            25 | 26 => Kind::Set(
                self.words
                    .pick(&["1", "${ input }", "${ input.rare.id }", "${ input.items }"]),
            ),
            27 => Kind::Wait(Wait::Secs(1 + self.words.below(40))),
            28 => Kind::Wait(Wait::Until(self.words.pick(&[
                "${ input.n * 1000 }",
                "1970-01-01T00:20:00Z",
                "${ input.rare }",
                "${ run.started_at }",
            ]))),
            29..=31 => Kind::WaitFor {
                timeout_secs: (!self.words.one_in(3)).then(|| 1 + self.words.below(60)),
                matches: !self.words.one_in(2),
                on_timeout: OnTimeout::Fail,
            },
            32..=35 if !self.callees.is_empty() && self.calls < 3 && weight < 5 => self.child(weight),
            36 => Kind::Emit(
                self.words
                    .pick(&["orders.x", "orders", "orders.${ input.n }", "orders.${ input.rare }"]),
            ),
            37 => Kind::Fail(self.words.pick(&["Refused", "Other"])),
            38 => match self.words.below(2) {
                0 => Kind::Complete,
                _ => Kind::ContinueAsNew,
            },
            _ => self.activity(),
        }
    }

    fn child(&mut self, weight: i32) -> Kind {
        self.calls += 1;
        self.budget -= 4 * weight;
        Kind::Child {
            name: if self.words.one_in(20) {
                "nobody"
            } else {
                self.words.pick(self.callees)
            },
            policy: self
                .words
                .pick(&[None, None, Some("request_cancel"), Some("terminate"), Some("abandon")]),
            detached: self.words.one_in(6),
            id: self
                .words
                .pick(&[None, None, None, Some("kid-${ input.n }"), Some("${ input.rare.id }")]),
        }
    }

    fn container(&mut self, depth: u32, weight: i32) -> Kind {
        let depth = depth + 1;
        match self.words.below(20) {
            0..=3 => self.parallel(depth, weight),
            4..=6 => self.for_each(depth, weight),
            7 | 8 => {
                let cases = [("input.flag", self.body(depth, weight))].into_iter();
                let second = self.words.one_in(3).then(|| ("input.n > 1", self.body(depth, weight)));
                let rare = self
                    .words
                    .one_in(8)
                    .then(|| ("input.rare.id", self.body(depth, weight)));
                Kind::Switch {
                    cases: cases.chain(second).chain(rare).collect(),
                    otherwise: (!self.words.one_in(2)).then(|| self.body(depth, weight)),
                }
            }
            9 | 10 if weight < 12 => Kind::While {
                when: self
                    .words
                    .pick(&["index < 1", "index < 2", "index < 9", "input.n > 1 and index < 2"]),
                max: 1 + self.words.below(3),
                steps: self.body(depth, weight * 2),
            },
            11..=14 => self.guard(depth, weight),
            15..=17 => Kind::Scope {
                steps: self.body(depth, weight),
                otherwise: (!self.words.one_in(2)).then(|| self.body(depth, weight)),
            },
            18 => Kind::WaitFor {
                timeout_secs: Some(1 + self.words.below(60)),
                matches: !self.words.one_in(2),
                on_timeout: match self.words.below(4) {
                    0 => OnTimeout::Continue,
                    _ => OnTimeout::Steps(self.body(depth, weight)),
                },
            },
            _ => self.guard(depth, weight),
        }
    }

    fn parallel(&mut self, depth: u32, weight: i32) -> Kind {
        let count = 1 + self.words.below(4);
        let branches = (0..count).map(|_| self.body(depth, weight)).collect();
        let join = match self.words.below(4) {
            0 | 1 => Join::All,
            2 => Join::Any,
            _ => Join::AtLeast(1 + self.words.below(count)),
        };
        Kind::Parallel {
            branches,
            join,
            keep: self.words.one_in(3),
        }
    }

    fn for_each(&mut self, depth: u32, weight: i32) -> Kind {
        if weight >= 12 {
            return self.guard(depth, weight);
        }
        let list = self.words.pick(&[
            "${ input.items }",
            "${ input.items }",
            "${ [1, 2, 3] }",
            "${ input.rare.items }",
            "${ vars.v | default([]) }",
        ]);
        let item = format!("item{}", self.next);
        self.items.push(item.clone());
        let steps = self.body(depth, weight * 2);
        self.items.pop();
        self.next += 1;
        Kind::ForEach {
            list,
            item,
            at_once: self.words.pick(&[None, Some(1), Some(2)]),
            collect: self.words.one_in(2),
            steps,
        }
    }

    fn guard(&mut self, depth: u32, weight: i32) -> Kind {
        let steps = self.body(depth, weight);
        let catches = match self.words.below(4) {
            0 => vec![(None, self.body(depth, weight))],
            1 => vec![(Some("Refused"), self.body(depth, weight))],
            2 => vec![
                (Some("Refused"), self.body(depth, weight)),
                (None, self.body(depth, weight)),
            ],
            _ => vec![],
        };
        let finally = catches.is_empty() || self.words.one_in(2);
        Kind::Try {
            steps,
            catches,
            finally: finally.then(|| self.body(depth, weight)),
        }
    }
}
