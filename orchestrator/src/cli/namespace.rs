//! `knarr namespace create | list`.

use clap::{Args, Subcommand};
use knarr_schemas::api::{CreateNamespace, ListNamespaces, NamespaceInfo, NamespacePage, verb};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
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
    },
    /// Lists the namespaces there are
    List,
}

pub async fn run(args: NamespaceArgs, globals: &Globals) -> Result<(), CliError> {
    match args.command {
        NamespaceCommand::Create { name } => {
            // The subject names the namespace, so that permissions on it decide who may create it.
            let globals = Globals {
                namespace: name,
                ..globals.clone()
            };
            let created: NamespaceInfo = globals
                .api()
                .await?
                .call(verb::NAMESPACE_CREATE, &CreateNamespace {})
                .await?;
            if globals.json() {
                output::print_json(&created);
            } else if created.created {
                output::print(&format!("namespace `{}` created", created.name));
            } else {
                output::print(&format!("namespace `{}` was there already", created.name));
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
                let names: Vec<_> = page
                    .namespaces
                    .iter()
                    .map(|namespace| namespace.name.as_str())
                    .collect();
                output::print(&names.join("\n"));
            }
        }
    }
    Ok(())
}
