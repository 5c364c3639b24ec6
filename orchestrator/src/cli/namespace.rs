//! `knarr namespace create | set | list`.

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Cell;
use knarr_schemas::api::{CreateNamespace, ListNamespaces, NamespaceInfo, NamespacePage, SetNamespace, verb};

use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::output;

#[derive(Debug, Args)]
pub struct NamespaceArgs {
    #[command(subcommand)]
    pub command: NamespaceCommand,
}

#[derive(Debug, Subcommand)]
pub enum NamespaceCommand {
    /// Creates a namespace, with its task stream; one that exists is left as it is
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Changes settings of a namespace; what is not said is left as it is
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Lists the namespaces there are
    List,
}

#[derive(Debug, Args)]
pub struct Settings {
    /// Whether each change of a run's status is published, on `knarr.event.<namespace>.<workflow>.<workflow id>.<kind>`
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub events: Option<Switch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl Settings {
    fn events(&self) -> Option<bool> {
        self.events.map(|switch| switch == Switch::On)
    }
}

/// The subject names the namespace, so that permissions on it decide who may do this to it.
fn of(name: String, globals: &Globals) -> Globals {
    Globals {
        namespace: name,
        ..globals.clone()
    }
}

pub async fn run(args: NamespaceArgs, globals: &Globals) -> Result<(), CliError> {
    match args.command {
        NamespaceCommand::Create { name, settings } => {
            let events = settings.events();
            let created: NamespaceInfo = of(name, globals)
                .api()
                .await?
                .call(verb::NAMESPACE_CREATE, &CreateNamespace { events })
                .await?;
            if globals.json() {
                output::print_json(&created);
            } else if created.created {
                output::print(&format!("namespace `{}` created", created.name));
            } else {
                output::print(&format!("namespace `{}` was there already", created.name));
                if events.is_some() && created.events != events {
                    let set = format!("knarr namespace set {} --events {}", created.name, on_or_off(events));
                    output::note(&format!("its events are {}: {set}", on_or_off(created.events)));
                }
            }
        }
        NamespaceCommand::Set { name, settings } => {
            let events = settings.events();
            if events.is_none() {
                return Err(CliError::usage(
                    "nothing is to be changed: say `--events on` or `--events off`".to_owned(),
                ));
            }
            let set: NamespaceInfo = of(name, globals)
                .api()
                .await?
                .call(verb::NAMESPACE_SET, &SetNamespace { events })
                .await?;
            if globals.json() {
                output::print_json(&set);
            } else {
                output::print(&format!(
                    "namespace `{}`: events are {}",
                    set.name,
                    on_or_off(set.events)
                ));
            }
        }
        NamespaceCommand::List => {
            let page: NamespacePage = globals
                .api()
                .await?
                .call(verb::NAMESPACE_LIST, &ListNamespaces {})
                .await?;
            if globals.json() {
                output::print_json(&page);
            } else {
                output::print(&render(&page.namespaces, &globals.look()));
            }
        }
    }
    Ok(())
}

fn render(namespaces: &[NamespaceInfo], look: &Look) -> String {
    let mut table = output::table(look, &["NAMESPACE", "EVENTS"]);
    for namespace in namespaces {
        table.add_row([Cell::new(&namespace.name), Cell::new(on_or_off(namespace.events))]);
    }
    output::table_text(&table, 0)
}

/// A server of an earlier version does not say.
fn on_or_off(events: Option<bool>) -> &'static str {
    match events {
        Some(true) => "on",
        Some(false) => "off",
        None => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_whose_events_are_on() {
        let namespace = |name: &str, events| NamespaceInfo {
            name: name.to_owned(),
            created: false,
            events,
        };
        let namespaces = [
            namespace("default", Some(true)),
            namespace("shop", Some(false)),
            namespace("older", None),
        ];
        let look = Look {
            color: false,
            width: None,
            now: chrono::DateTime::UNIX_EPOCH,
        };
        insta::assert_snapshot!(render(&namespaces, &look), @r"
        NAMESPACE  EVENTS
        default    on
        shop       off
        older      -
        ");
    }
}
