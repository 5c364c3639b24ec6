//! Codes of what the engine reports in its log (`KN0338`–`KN0340`).

use knarr_schemas::codes;

codes! {
    STARTS_THROTTLED = "KN0338", "starts_throttled",
        "The log fills, so that starts of some namespaces are no longer taken: results keep their room.",
        "Check that the orchestrators and PostgreSQL keep up; starts are taken again when the log has fallen to half.";
    NOT_EMITTED = "KN0339", "not_emitted",
        "A run emitted to a subject that nothing may be emitted to; the event was dropped and the run goes on.",
        "Have the step name a subject of your own, like `orders.shipped`, in a new version of the definition.";
    LOG_GAP = "KN0340", "log_gap",
        "Messages that JetStream had acknowledged are no longer in the log.",
        "Look at the storage of NATS; whoever published in the range named sends again, which is harmless under the same request ids.";
}

pub mod bounds {
    //! Codes of what a replica cannot do within its bounds (`KN0390`–`KN0394`).
    use knarr_schemas::codes;

    codes! {
        OWED_UNREADABLE = "KN0390", "owed_unreadable",
            "A commit owes publications of a run that cannot be read; they stay owed and are tried again every minute.",
            "Run the version of knarr that wrote it, or restore its rows. To give up what it owes, delete the row of `commits` that is named.";
    }
}

pub mod limits {
    //! Codes of what becomes of limits (`KN0360`).
    use knarr_schemas::codes;

    codes! {
        LIMITER_STOPPED = "KN0360", "limiter_stopped",
            "A limit could not be moved on, by an error of knarr: whoever waits for a permit of it goes on waiting, and nothing is lost.",
            "Run a version in which it is mended; the limit is tried again whenever its partition is taken over. Report the panic that is in the log before this.";
    }
}
