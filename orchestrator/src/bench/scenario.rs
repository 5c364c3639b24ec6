//! What is run: a definition, an input, the activities with their answers, and how a run has to go.

use std::fmt::Write as _;

use clap::ValueEnum;

/// Bytes of a start's body.
const INPUT_BYTES: usize = 500;
/// Bytes of a result's body.
const RESULT_BYTES: usize = 200;

/// The order saga, as `knarr demo` and the examples have it.
const ORDER: &str = include_str!("../../../workers/examples/order.yaml");

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Scenario {
    /// Four activities in sequence, all of which succeed
    Order,
    /// The third activity fails for good: two undos
    OrderFailing,
}

/// An index into [`ACTIVITIES`]. Each stands for one step in one direction, so a run executes it once or never.
pub(crate) type Activity = u8;

pub(crate) const ACTIVITIES: [&str; 7] = [
    "create-order",
    "process-payment",
    "reserve-inventory",
    "send-confirmation",
    "cancel-order",
    "refund-payment",
    "release-inventory",
];

const CREATE: Activity = 0;
const PAY: Activity = 1;
const RESERVE: Activity = 2;
const CONFIRM: Activity = 3;
const CANCEL: Activity = 4;
const REFUND: Activity = 5;

/// The queue that the definition names.
pub(crate) const QUEUE: &str = "orders";

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::OrderFailing => "order_failing",
        }
    }

    pub(crate) fn workflow(self) -> &'static str {
        "order"
    }

    pub(crate) fn definition(self) -> &'static str {
        ORDER
    }

    /// The status with which every run has to end.
    pub(crate) fn end(self) -> &'static str {
        match self {
            Self::Order => "completed",
            Self::OrderFailing => "compensated",
        }
    }

    /// What a run executes, in order; the one that fails is executed too.
    pub(crate) fn course(self) -> &'static [Activity] {
        match self {
            Self::Order => &[CREATE, PAY, RESERVE, CONFIRM],
            Self::OrderFailing => &[CREATE, PAY, RESERVE, REFUND, CANCEL],
        }
    }

    /// Whether the worker says *failed*, for good.
    pub(crate) fn fails(self, activity: Activity) -> bool {
        self == Self::OrderFailing && activity == RESERVE
    }

    pub(crate) fn input(self) -> Vec<u8> {
        let mut text = String::from(r#"{"customer":"customer-4711""#);
        if self == Self::OrderFailing {
            text.push_str(r#","fail":{"reserve-inventory":"failed"}"#);
        }
        text.push_str(
            r#","items":[{"sku":"sku-1001","quantity":2,"price":19.5},{"sku":"sku-1002","quantity":1,"price":240}]"#,
        );
        padded(text, INPUT_BYTES).into_bytes()
    }
}

/// The body with which an activity answers.
pub(crate) fn result(activity: Activity) -> String {
    let fields = match activity {
        CREATE => r#""order_id":"ord-4711","total":279.0"#,
        PAY => r#""payment_id":"pay-4711","amount":279.0"#,
        RESERVE => r#""reservation_id":"res-4711""#,
        CONFIRM => r#""message_id":"msg-4711""#,
        _ => r#""undone":true"#,
    };
    padded(format!("{{{fields}"), RESULT_BYTES)
}

/// Closes an object that lacks its brace, filled up to so many bytes.
fn padded(mut object: String, bytes: usize) -> String {
    let fill = bytes.saturating_sub(object.len() + r#","note":""}"#.len());
    // Writing to a String cannot fail.
    let _ = write!(object, r#","note":"{}"}}"#, ".".repeat(fill));
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_the_promised_size() {
        for scenario in Scenario::value_variants() {
            let input = scenario.input();
            assert_eq!(input.len(), INPUT_BYTES);
            assert!(serde_json::from_slice::<serde_json::Value>(&input).is_ok());
        }
        for activity in 0..7 {
            let body = result(activity);
            assert_eq!(body.len(), RESULT_BYTES);
            assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
        }
    }

    #[test]
    fn the_definition_names_the_activities_and_the_queue() {
        for activity in ACTIVITIES {
            assert!(ORDER.contains(&format!("activity: {activity}\n")), "{activity}");
        }
        assert!(ORDER.contains(&format!("queue: {QUEUE}\n")));
    }
}
