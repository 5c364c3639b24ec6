//! The graph itself, as programs get it (`-o json`).

use serde::Serialize;

/// A definition as a tree of blocks, and the edges between its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Graph {
    pub workflow: String,
    pub version: u32,
    pub steps: Vec<Step>,
    /// Beside the steps: what is done for each signal or update of a name, in one lane.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<Step>,
    pub edges: Vec<Edge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Unique in the graph; for an iteration of a loop there is one step.
    pub path: String,
    pub id: String,
    pub kind: StepKind,
    /// What it does, in a few words.
    pub label: String,
    /// `if:`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// From here the run only goes forward.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pivot: bool,
    /// What else there is to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The activity that undoes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// The bodies in it, in the order of the definition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<Lane>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Activity,
    Set,
    Parallel,
    ForEach,
    Switch,
    While,
    Try,
    Scope,
    Wait,
    WaitFor,
    Workflow,
    /// Of a signal or an update.
    Handler,
    Emit,
    Fail,
    Complete,
    ContinueAsNew,
}

/// One body of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lane {
    pub role: Role,
    /// When it is taken, in a few words; empty for a main body.
    pub title: String,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Body,
    Branch,
    Case,
    Catch,
    Finally,
    Otherwise,
    OnTimeout,
}

/// Ends are paths of steps; `undo <path>` for what undoes one; `start` and `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    pub from: String,
    pub to: String,
    pub kind: EdgeKind,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// What comes after.
    Next,
    /// The next iteration.
    Again,
    /// Taken when something fails or is late.
    Failure,
    /// From a step to what undoes it.
    Undo,
    /// From an undo to one that comes after it.
    UndoNext,
}

impl Step {
    /// Nothing comes after it in its list.
    pub(super) fn ends(&self) -> bool {
        let last = matches!(self.kind, StepKind::Fail | StepKind::Complete | StepKind::ContinueAsNew);
        last && self.condition.is_none()
    }

    /// Whether it or a step in it has an undo.
    pub(super) fn undoes(&self) -> bool {
        self.undo.is_some() || self.lanes.iter().any(|lane| lane.steps.iter().any(Step::undoes))
    }
}

impl Role {
    /// The lanes of a block stand in rows: what is taken first, what may be taken instead, what is taken last.
    pub(super) fn row(self) -> usize {
        match self {
            Self::Body | Self::Branch | Self::Case => 0,
            Self::Catch | Self::Otherwise | Self::OnTimeout => 1,
            Self::Finally => 2,
        }
    }
}
