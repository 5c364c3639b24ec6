//! Codes of what can be wrong with a request to the HTTP side (`KN0330`, `KN0331`).

use knarr_schemas::codes;

codes! {
    NOT_FOUND = "KN0330", "http_not_found",
        "There is nothing at this path.",
        "Ask for /metrics, /health/live or /health/ready.";
    METHOD = "KN0331", "http_method",
        "The path can only be read.",
        "Use GET.";
}
