//! What is drawn, with a little less of it.

use super::{Activity, Body, Draft, Handled, Handler, Kind, Options, Step};

impl Draft {
    /// Drafts that have a little less of it.
    pub fn smaller(&self) -> Vec<Self> {
        let mut drafts: Vec<Self> = smaller_bodies(&self.steps)
            .into_iter()
            .map(|steps| Self { steps, ..self.clone() })
            .collect();
        for (at, handler) in self.handlers.iter().enumerate() {
            let others = [&self.handlers[..at], &self.handlers[at + 1..]].concat();
            let smaller = handler.smaller().into_iter().map(|smaller| {
                let mut handlers = self.handlers.clone();
                handlers[at] = smaller;
                handlers
            });
            drafts.extend([others].into_iter().chain(smaller).map(|handlers| Self {
                handlers,
                ..self.clone()
            }));
        }
        let plain = Self {
            timeout_secs: None,
            sequential: false,
            halts: false,
            search_attribute: false,
            output: false,
            queries: false,
            attempts: None,
            ..self.clone()
        };
        let free = Self {
            places: None,
            priority: None,
            ..self.clone()
        };
        drafts.extend([plain, free].into_iter().filter(|draft| draft != self));
        drafts
    }
}

/// Bodies with one step less, or with what is in a step in its place.
fn smaller_bodies(body: &Body) -> Vec<Body> {
    let mut bodies = Vec::new();
    let half = body.len() / 2;
    if half > 1 {
        bodies.push(body[..half].to_vec());
        bodies.push(body[half..].to_vec());
    }
    for (index, step) in body.iter().enumerate() {
        let with = |steps: Vec<Step>| [&body[..index], &steps, &body[index + 1..]].concat();
        if body.len() > 1 {
            bodies.push(with(vec![]));
        }
        let mut inner = step.clone();
        bodies.extend(inner.kind.bodies_mut().into_iter().map(|inner| with(inner.clone())));
        if step.condition.is_some() && step.kind != Kind::ContinueAsNew {
            bodies.push(with(vec![Step {
                condition: None,
                ..step.clone()
            }]));
        }
        if let Kind::Activity(activity) = &step.kind {
            for kind in activity.smaller() {
                bodies.push(with(vec![Step { kind, ..step.clone() }]));
            }
        }
        for at in 0..inner.kind.bodies_mut().len() {
            for smaller in smaller_bodies(inner.kind.bodies_mut()[at]) {
                let mut step = step.clone();
                *step.kind.bodies_mut()[at] = smaller;
                bodies.push(with(vec![step]));
            }
        }
    }
    bodies
}

impl Handler {
    fn smaller(&self) -> Vec<Self> {
        let plain = [
            Self {
                schema: false,
                ..self.clone()
            },
            Self {
                validate: None,
                ..self.clone()
            },
            Self {
                output: None,
                ..self.clone()
            },
        ];
        let mut bodies = smaller_bodies(&self.steps);
        if self.of == Handled::Update {
            bodies.push(Vec::new());
        }
        let with = bodies.into_iter().map(|steps| Self { steps, ..self.clone() });
        with.chain(plain).filter(|it| it != self).collect()
    }
}

impl Activity {
    fn smaller(&self) -> Vec<Kind> {
        let plain = [
            Self {
                input: None,
                ..self.clone()
            },
            Self {
                on_failure_continues: false,
                ..self.clone()
            },
            Self {
                compensate_on_failure: false,
                ..self.clone()
            },
            Self {
                pivot: false,
                ..self.clone()
            },
            Self {
                options: Options::default(),
                ..self.clone()
            },
            Self {
                attempts: None,
                queue: None,
                non_retryable: false,
                ..self.clone()
            },
        ];
        plain.into_iter().filter(|it| it != self).map(Kind::Activity).collect()
    }
}
