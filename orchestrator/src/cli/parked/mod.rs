//! `knarr parked`: what waits for an operator, and what operators decide about it.

mod act;
mod args;
mod list;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;

pub use args::{ActArgs, FilterArgs, ListArgs, ParkedArgs, ParkedCommand};

pub async fn run(args: ParkedArgs, globals: &Globals) -> Result<(), CliError> {
    match args.command {
        ParkedCommand::List(args) => list::run(args, globals).await,
        ParkedCommand::Retry(args) => act::run(act::Action::Retry, args, globals).await,
        ParkedCommand::Edit { input, act } => {
            let input = crate::cli::start::read_input("--input", Some(&input))?;
            act::run(act::Action::Edit(input), act, globals).await
        }
        ParkedCommand::Done { result, act } => {
            let output = crate::cli::start::read_input("--result", result.as_deref())?;
            act::run(act::Action::Done(output), act, globals).await
        }
        ParkedCommand::Skip(args) => act::run(act::Action::Skip, args, globals).await,
    }
}
