//! Codes of what the engine reports in its log (`KN0340`).

use knarr_schemas::codes;

codes! {
    LOG_GAP = "KN0340", "log_gap",
        "Messages that JetStream had acknowledged are no longer in the log.",
        "Look at the storage of NATS; whoever published in the range named sends again, which is harmless under the same request ids.";
}
