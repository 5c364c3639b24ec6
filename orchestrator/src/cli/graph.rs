//! `knarr graph`: what a definition looks like, undos included.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use knarr_core::definition::graph::{Graph, mermaid, svg};

use crate::cli::error::{CliError, Exit};
use crate::cli::globals::Globals;
use crate::cli::{check, output};

/// Draws a definition, undos included
#[derive(Debug, Args)]
#[command(
    long_about = "Draws a definition: its steps in their order, branches, loops and alternatives, and beside each step what \
                  undoes it. Arrows of undos go upwards, the way a failed run is undone.\n\nMermaid is shown as a picture by \
                  GitHub, GitLab and many editors; an SVG stands by itself. `-o json` gives the graph for programs.",
    after_help = "Examples:\n  knarr graph order.yaml\n  knarr graph order.yaml --format svg > order.svg\n  knarr graph order.yaml -o json\n\n\
                  Exit status: 0 drawn, 1 the definition has errors, 2 it cannot be read."
)]
pub struct GraphArgs {
    /// The definition, YAML or JSON; - for stdin
    pub file: PathBuf,

    /// As what to draw it
    #[arg(long, short = 'f', value_enum, default_value = "mermaid", value_name = "FORMAT")]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Mermaid,
    Svg,
}

pub fn run(args: &GraphArgs, globals: &Globals) -> Result<(), CliError> {
    let local = check::load(&args.file)?;
    let Some(checked) = &local.read.checked else {
        check::report(&local, globals);
        return Err(CliError::silent(Exit::No));
    };
    let graph = Graph::of(&checked.plan);
    if globals.json() {
        output::print_json(&graph);
        return Ok(());
    }
    output::print(&match args.format {
        Format::Mermaid => mermaid(&graph),
        Format::Svg => svg(&graph),
    });
    Ok(())
}
