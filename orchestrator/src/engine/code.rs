//! Codes of what the engine reports in its log (`KN0338`, `KN0340`).

use knarr_schemas::codes;

codes! {
    STARTS_THROTTLED = "KN0338", "starts_throttled",
        "The log fills, and starts of some namespaces are not taken for a while so that results keep their room.",
        "See whether the orchestrator and PostgreSQL keep up, or give the log more room.";
    LOG_GAP = "KN0340", "log_gap",
        "Messages that JetStream had acknowledged are no longer in the log.",
        "Look at the storage of NATS; whoever published in the range named sends again, which is harmless under the same request ids.";
}
