//! What a definition looks like: a tree of blocks with the edges between its steps, and two renderings of it.
//!
//! The model is made of a [`Plan`](super::plan::Plan), so a file and a stored definition give the same graph. Undo edges are
//! of two kinds: from a step to what undoes it, and from an undo to those that come after it when everything is undone.
//!
//! **Invariant:** a rendering holds nothing but the graph, and every text of a definition is escaped in it: no id, name or
//! expression can break out of its label.
//!
//! What this module does not do: draw a run. It shows what may happen, not what did.

mod build;
mod edges;
mod mermaid;
mod model;
mod svg;

pub use mermaid::mermaid;
pub use model::{Edge, EdgeKind, Graph, Lane, Role, Step, StepKind};
pub use svg::svg;

#[cfg(test)]
mod tests;
