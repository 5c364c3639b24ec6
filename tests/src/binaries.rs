//! The binaries under test, built once by the harness, so that `cargo test -p knarr-tests` alone works.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Built with debug assertions unless the tests themselves are a release build: crash points exist in those alone.
fn directory() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        // target/<profile>/deps/<test>
        let profile = exe.parent().and_then(Path::parent).unwrap().to_owned();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // Both packages at once, so that features are those of the test's own build and nothing is built twice.
        build.args(["build", "--quiet", "-p", "knarr", "-p", "knarr-tests"]);
        build.args([
            "--bin",
            "knarr",
            "--bin",
            "knarr-test-worker",
            "--bin",
            "knarr-test-participant",
        ]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        // What the outer cargo says of this package makes build scripts (ring's) believe that everything has changed.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let of_package = [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_BIN_",
                "CARGO_CRATE_",
                "CARGO_PRIMARY_",
            ];
            if of_package.iter().any(|prefix| text.starts_with(prefix)) {
                build.env_remove(&name);
            }
        }
        assert!(build.status().unwrap().success(), "the binaries cannot be built");
        profile
    })
}

pub fn knarr() -> PathBuf {
    directory().join("knarr")
}

pub fn worker() -> PathBuf {
    directory().join("knarr-test-worker")
}

pub fn participant() -> PathBuf {
    directory().join("knarr-test-participant")
}
