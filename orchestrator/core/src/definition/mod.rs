//! Definitions: from YAML or JSON to a checked, compiled [`plan::Plan`].

pub mod plan;
