//! A definition as it is drawn, before it is text.
//!
//! The first letter of a step's id says what it is, for whoever reads its path: `a` an activity, `p` a parallel, `e` a
//! `for_each` side by side, `o` one at a time, `w` a `while`, `t` a `try`, `s` a scope, `k` a child, `i` a wait, `f` a
//! `wait_for`. [`super::told`] relies on it.

mod mend;
mod smaller;
mod text;

#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub name: &'static str,
    pub version: u32,
    pub steps: Vec<Step>,
    /// What is done beside the steps.
    pub handlers: Vec<Handler>,
    /// Whether something may be asked of its runs.
    pub queries: bool,
    pub timeout_secs: Option<u32>,
    pub sequential: bool,
    pub halts: bool,
    pub search_attribute: bool,
    pub output: bool,
    /// Of a run that is tried again.
    pub attempts: Option<u32>,
    pub places: Option<Places>,
    pub priority: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// A signal that no step waits for.
    Signal,
    Update,
}

/// What is done for each signal or update of a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Handler {
    pub of: Handled,
    pub name: &'static str,
    /// What does not fit is refused.
    pub schema: bool,
    /// Of an update there may be none.
    pub steps: Body,
    /// Of an update.
    pub validate: Option<&'static str>,
    pub output: Option<&'static str>,
}

/// How many runs of a definition may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    pub limit: u32,
    /// So many for each key.
    pub keyed: bool,
    pub on_conflict: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub id: String,
    pub condition: Option<&'static str>,
    pub kind: Kind,
}

pub type Body = Vec<Step>;

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Activity(Activity),
    /// What `vars.v` is given.
    Set(&'static str),
    Parallel {
        branches: Vec<Body>,
        join: Join,
        keep: bool,
    },
    ForEach {
        list: &'static str,
        item: String,
        at_once: Option<u32>,
        collect: bool,
        steps: Body,
    },
    Switch {
        cases: Vec<(&'static str, Body)>,
        otherwise: Option<Body>,
    },
    While {
        when: &'static str,
        max: u32,
        steps: Body,
    },
    Try {
        steps: Body,
        catches: Vec<(Option<&'static str>, Body)>,
        finally: Option<Body>,
    },
    Scope {
        steps: Body,
        otherwise: Option<Body>,
    },
    Wait(Wait),
    WaitFor {
        timeout_secs: Option<u32>,
        matches: bool,
        on_timeout: OnTimeout,
    },
    Child {
        name: &'static str,
        policy: Option<&'static str>,
        detached: bool,
        id: Option<&'static str>,
    },
    Emit(&'static str),
    Fail(&'static str),
    Complete,
    ContinueAsNew,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    pub input: Option<String>,
    pub undo: Undo,
    pub on_failure_continues: bool,
    pub compensate_on_failure: bool,
    pub pivot: bool,
    pub attempts: Option<Attempts>,
    pub start_to_close_secs: u32,
    pub queue: Option<&'static str>,
    pub non_retryable: bool,
    pub options: Options,
}

/// What most activities do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub schedule_to_start_secs: Option<u32>,
    pub schedule_to_close_secs: Option<u32>,
    pub heartbeat_secs: Option<u32>,
    pub cancellation: Option<&'static str>,
    /// So many at a time, or so many for each key.
    pub concurrency: Option<(u32, bool)>,
    pub rate: Option<(u32, bool)>,
    pub priority: Option<u32>,
    pub fair: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attempts {
    AtMost(u32),
    Unlimited,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Undo {
    Undeclared,
    ReadOnly,
    NoUndo,
    /// By that expression, or no input at all.
    Compensate(Option<String>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Join {
    All,
    Any,
    AtLeast(u32),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wait {
    Secs(u32),
    Until(&'static str),
}

#[derive(Debug, Clone, PartialEq)]
pub enum OnTimeout {
    Fail,
    Continue,
    Steps(Body),
}

impl Kind {
    pub fn bodies_mut(&mut self) -> Vec<&mut Body> {
        match self {
            Self::Parallel { branches, .. } => branches.iter_mut().collect(),
            Self::ForEach { steps, .. } | Self::While { steps, .. } => vec![steps],
            Self::Switch { cases, otherwise } => cases
                .iter_mut()
                .map(|(_, body)| body)
                .chain(otherwise.as_mut())
                .collect(),
            Self::Try {
                steps,
                catches,
                finally,
            } => {
                let catches = catches.iter_mut().map(|(_, body)| body);
                std::iter::once(steps).chain(catches).chain(finally.as_mut()).collect()
            }
            Self::Scope { steps, otherwise } => std::iter::once(steps).chain(otherwise.as_mut()).collect(),
            Self::WaitFor {
                on_timeout: OnTimeout::Steps(steps),
                ..
            } => vec![steps],
            _ => vec![],
        }
    }
}
