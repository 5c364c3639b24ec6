//! A graph as a picture: one self-contained SVG, readable on light and dark ground.
//!
//! The structure is a tree of blocks, so the layout is a tree of boxes: a list is a column on one axis, a block is a frame
//! around rows of lanes. Undos stand in a rail to the right of their column, and the arrows along the rail go upwards, the
//! way a run is undone.
//!
//! Everything is in whole pixels: the same graph is the same text everywhere.

mod draw;
mod frame;
mod measure;
mod style;
mod text;

pub use draw::svg;
pub(super) use text::cut;
