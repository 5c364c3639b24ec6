//! `knarr queue set | clear | list | show`.

use crate::cli::duration;
use clap::{ArgGroup, Args, Subcommand};
use comfy_table::Cell;
use knarr_core::time::Span;
use knarr_schemas::api::{LimitInfo, ListQueues, QueueInfo, QueuePage, RateBody, SetQueue, verb};

use crate::cli::error::CliError;
use crate::cli::globals::{Globals, Look};
use crate::cli::output;

#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(subcommand)]
    pub command: QueueCommand,
}

#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Says what a queue may, over all workers and replicas, instead of what was said before
    #[command(group = ArgGroup::new("limit").required(true).multiple(true))]
    Set {
        /// Its name
        queue: String,
        /// So many tasks at a time, of all its activities together
        #[arg(long, group = "limit", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        max_concurrent: Option<u32>,
        /// So many tasks in a stretch of time, like `50/s`, `1000/h` or `10/5m`
        #[arg(long, group = "limit", value_name = "N/TIME", value_parser = parse_rate)]
        rate: Option<RateBody>,
        /// How long a worker may be silent about a task before another gets it [default: 30s, or the largest
        /// `start_to_close` of the queue's activities if that is more]
        #[arg(long, group = "limit", value_name = "TIME", value_parser = duration::millis)]
        ack_wait: Option<u64>,
    },
    /// Lifts the limits of a queue, and gives it back its usual lease
    Clear {
        /// Its name
        queue: String,
    },
    /// Lists what queues may, and every limit in use with what is out and what waits
    #[command(visible_alias = "ls")]
    List,
    /// The same of one queue
    Show {
        /// Its name
        queue: String,
    },
}

pub async fn run(args: QueueArgs, globals: &Globals) -> Result<(), CliError> {
    match args.command {
        QueueCommand::Set {
            queue,
            max_concurrent,
            rate,
            ack_wait,
        } => {
            let request = SetQueue {
                queue,
                max_concurrent,
                rate,
                ack_wait_ms: ack_wait,
            };
            set(&request, globals).await
        }
        QueueCommand::Clear { queue } => {
            let request = SetQueue {
                queue,
                max_concurrent: None,
                rate: None,
                ack_wait_ms: None,
            };
            set(&request, globals).await
        }
        QueueCommand::List => {
            let page = page(globals).await?;
            show(
                &page,
                globals,
                "no queue is limited, and no limit of an activity or workflow is in use",
            );
            Ok(())
        }
        QueueCommand::Show { queue } => {
            let mut page = page(globals).await?;
            page.queues.retain(|info| info.queue == queue);
            page.limits
                .retain(|limit| limit.kind.starts_with("queue") && limit.of == queue);
            show(&page, globals, &format!("the queue `{queue}` is not limited"));
            Ok(())
        }
    }
}

async fn set(request: &SetQueue, globals: &Globals) -> Result<(), CliError> {
    let info: QueueInfo = globals.api().await?.call(verb::QUEUE_SET, request).await?;
    if globals.json() {
        output::print_json(&info);
    } else {
        output::print(&said(&info));
    }
    Ok(())
}

async fn page(globals: &Globals) -> Result<QueuePage, CliError> {
    globals.api().await?.call(verb::QUEUE_LIST, &ListQueues {}).await
}

fn show(page: &QueuePage, globals: &Globals, nothing: &str) {
    if globals.json() {
        output::print_json(page);
    } else if page.queues.is_empty() && page.limits.is_empty() {
        output::note(nothing);
    } else {
        output::print(&render(page, &globals.look()));
    }
}

fn said(info: &QueueInfo) -> String {
    let limits: Vec<_> = [info.max_concurrent.map(at_a_time), info.rate.map(in_time)]
        .into_iter()
        .flatten()
        .collect();
    let mut said = match limits.is_empty() {
        true => format!("the queue `{}` is not limited", info.queue),
        false => format!("the queue `{}` may have {}", info.queue, limits.join(" and ")),
    };
    if let Some(lease) = info.ack_wait_ms.map(lease) {
        said.push_str(&format!("; workers may be silent about its tasks for {lease}"));
    }
    said
}

fn lease(ack_wait_ms: u64) -> String {
    duration::format(Span::from_millis(ack_wait_ms))
}

fn at_a_time(limit: u32) -> String {
    format!("{limit} at a time")
}

fn in_time(rate: RateBody) -> String {
    format!("{} in {}", rate.limit, duration::format(Span::from_millis(rate.per_ms)))
}

fn render(page: &QueuePage, look: &Look) -> String {
    let mut out = String::new();
    if !page.queues.is_empty() {
        let mut table = output::table(look, &["QUEUE", "AT A TIME", "RATE", "LEASE"]);
        for info in &page.queues {
            table.add_row([
                Cell::new(&info.queue),
                Cell::new(
                    info.max_concurrent
                        .map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
                ),
                Cell::new(info.rate.map_or_else(|| "-".to_owned(), in_time)),
                Cell::new(info.ack_wait_ms.map_or_else(|| "-".to_owned(), lease)),
            ]);
        }
        out.push_str(&output::table_text(&table, 0));
    }
    if !page.limits.is_empty() {
        if !out.is_empty() {
            out.push('\n');
        }
        let mut table = output::table(look, &["LIMIT", "OF", "KEY", "OUT", "WAITING", "SINCE"]);
        for limit in &page.limits {
            table.add_row(of(limit, look));
        }
        out.push_str(&output::table_text(&table, 0));
    }
    out
}

fn of(limit: &LimitInfo, look: &Look) -> [Cell; 6] {
    let (what, whose) = match limit.kind.as_str() {
        "queue" => ("concurrency", "queue"),
        "queue_rate" => ("rate", "queue"),
        "activity_rate" => ("rate", "activity"),
        "activity" => ("concurrency", "activity"),
        "workflow" => ("concurrency", "workflow"),
        other => (other, ""),
    };
    [
        Cell::new(what),
        Cell::new(format!("{whose} {}", limit.of)),
        Cell::new(output::cut(limit.key.as_deref().unwrap_or("-"), 40)),
        Cell::new(limit.held),
        Cell::new(limit.waiting),
        Cell::new(
            limit
                .since
                .map_or_else(|| "-".to_owned(), |since| output::age(look, since)),
        ),
    ]
}

/// `50/s`, `10/5m`.
fn parse_rate(text: &str) -> Result<RateBody, String> {
    let help = "write it like `50/s`, `1000/h` or `10/5m`";
    let (limit, per) = text.split_once('/').ok_or(help)?;
    let limit = limit.trim().parse().map_err(|_| help)?;
    let per = per.trim();
    let counted = per.starts_with(|first: char| first.is_ascii_digit());
    let per = duration::parse(&if counted { per.to_owned() } else { format!("1{per}") })
        .map_err(|error| format!("its time {error}; {help}"))?;
    Ok(RateBody {
        limit,
        per_ms: per.as_millis(),
    })
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone, Utc};

    use super::*;

    #[test]
    fn rates_are_written_as_people_say_them() {
        for (text, limit, per_ms) in [
            ("50/s", 50, 1_000),
            ("1000/h", 1_000, 3_600_000),
            ("10 / 5m", 10, 300_000),
        ] {
            assert_eq!(parse_rate(text), Ok(RateBody { limit, per_ms }), "{text}");
        }
        for text in ["50", "/s", "50/", "x/s", "50/parsec", "-1/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_queues_may_and_what_waits() {
        let now = Utc.timestamp_opt(1_795_000_000, 0).unwrap();
        let limit = |kind: &str, of: &str, key: Option<&str>, held, waiting| LimitInfo {
            kind: kind.into(),
            of: of.into(),
            key: key.map(str::to_owned),
            held,
            waiting,
            since: (waiting > 0).then(|| now - TimeDelta::seconds(75)),
        };
        let rate = RateBody {
            limit: 50,
            per_ms: 1_000,
        };
        let queue = |queue: &str, max_concurrent, rate| QueueInfo {
            queue: queue.into(),
            max_concurrent,
            rate,
            ack_wait_ms: None,
        };
        let leased = QueueInfo {
            ack_wait_ms: Some(90_000),
            ..queue("video", None, None)
        };
        let page = QueuePage {
            queues: vec![
                queue("orders", Some(10), Some(rate)),
                queue("mail", None, Some(rate)),
                leased.clone(),
            ],
            limits: vec![
                limit("queue", "orders", None, 10, 417),
                limit("activity", "charge", Some("acme"), 1, 3),
                limit("queue_rate", "orders", None, 10, 0),
                limit("workflow", "order", Some("c1"), 2, 1),
            ],
        };
        let look = Look {
            color: false,
            width: None,
            now,
        };
        insta::assert_snapshot!("queues", render(&page, &look));
        assert_eq!(
            said(&page.queues[0]),
            "the queue `orders` may have 10 at a time and 50 in 1s"
        );
        assert_eq!(said(&queue("orders", None, None)), "the queue `orders` is not limited");
        assert_eq!(
            said(&leased),
            "the queue `video` is not limited; workers may be silent about its tasks for 1m30s"
        );
    }
}
