//! Definitions: from YAML or JSON to a checked, compiled [`plan::Plan`].

pub mod duration;
pub mod near;
pub mod plan;
