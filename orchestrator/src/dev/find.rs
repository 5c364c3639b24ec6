//! Where the servers' programs come from: named by flag or environment, else found on this machine and new enough, else
//! installed into a cache.
//!
//! What was named and cannot be used is an error; what was found and cannot be used is passed over, saying so.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::account::Account;
use super::{DevError, Progress, install};

/// Older ones silently ignore configuration they do not know.
const NATS_AT_LEAST: (u32, u32) = (2, 12);
const POSTGRES_AT_LEAST: u32 = 15;

/// Where to look. [`Default`] looks where the environment says.
#[derive(Debug, Clone)]
pub struct Search {
    /// A nats-server program, and who named it.
    pub nats_server: Option<(&'static str, PathBuf)>,
    /// A bin directory of PostgreSQL, and who named it.
    pub postgres_bin: Option<(&'static str, PathBuf)>,
    /// Searched for both.
    pub path: OsString,
    /// Directories whose `<version>/bin` hold PostgreSQL.
    pub postgres_roots: Vec<PathBuf>,
    /// Where installed servers are kept.
    pub cache: PathBuf,
}

impl Default for Search {
    fn default() -> Self {
        let from_env = |name: &'static str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(|value| (name, PathBuf::from(value)))
        };
        Self {
            nats_server: from_env("KNARR_NATS_SERVER"),
            postgres_bin: from_env("KNARR_POSTGRES_BIN"),
            path: env::var_os("PATH").unwrap_or_default(),
            postgres_roots: ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"]
                .map(PathBuf::from)
                .into(),
            cache: default_cache(),
        }
    }
}

fn default_cache() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("KNARR_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("knarr")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/knarr")))
        // Never a temporary directory: anyone could have put programs there under a name known in advance.
        .unwrap_or_else(|| PathBuf::from("/var/cache/knarr"))
}

impl Search {
    /// The path of a nats-server that can be used.
    pub(crate) async fn nats_server(&self, progress: &Progress) -> Result<PathBuf, DevError> {
        if let Some((named_by, path)) = &self.nats_server {
            return match usable_nats(path).await {
                Ok(()) => Ok(path.clone()),
                Err(reason) => Err(DevError::Named {
                    named_by,
                    path: path.clone(),
                    reason,
                }),
            };
        }
        for directory in env::split_paths(&self.path) {
            let program = directory.join("nats-server");
            if !program.is_file() {
                continue;
            }
            match usable_nats(&program).await {
                Ok(()) => return Ok(program),
                Err(reason) => progress.note(&format!("Passing over {}: {reason}", program.display())),
            }
        }
        install::nats_server(&self.cache, progress).await
    }

    /// A bin directory of PostgreSQL that `account` can execute; of exactly `major` if data of that version is there.
    pub(crate) async fn postgres_bin(
        &self,
        account: Option<&Account>,
        major: Option<u32>,
        progress: &Progress,
    ) -> Result<PathBuf, DevError> {
        if let Some((named_by, path)) = &self.postgres_bin {
            let found = usable_postgres(path, account).await.map_err(|reason| DevError::Named {
                named_by,
                path: path.clone(),
                reason,
            })?;
            return match major {
                Some(major) if major != found => Err(DevError::WrongMajor {
                    path: path.clone(),
                    data_major: major,
                    found_major: found,
                }),
                _ => Ok(path.clone()),
            };
        }
        let mut usable = Vec::new();
        for directory in self.postgres_candidates() {
            match usable_postgres(&directory, account).await {
                Ok(found) => usable.push((found, directory)),
                Err(reason) => progress.note(&format!("Passing over {}: {reason}", directory.display())),
            }
        }
        // The newest; of equals the first found, so that PATH decides.
        let best = usable
            .iter()
            .rev()
            .filter(|(found, _)| major.is_none_or(|major| major == *found))
            .max_by_key(|(found, _)| *found);
        if let Some((_, directory)) = best {
            return Ok(directory.clone());
        }
        match (major, usable.first()) {
            (Some(major), found) if major != install::POSTGRES_MAJOR => Err(DevError::WrongMajor {
                path: PathBuf::from("the data directory"),
                data_major: major,
                found_major: found.map_or(install::POSTGRES_MAJOR, |(found, _)| *found),
            }),
            _ => install::postgres_bin(&self.cache, account, progress).await,
        }
    }

    fn postgres_candidates(&self) -> Vec<PathBuf> {
        let on_path = env::split_paths(&self.path);
        let versioned = self
            .postgres_roots
            .iter()
            .flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten())
            .map(|entry| entry.path().join("bin"));
        let mut candidates: Vec<PathBuf> = Vec::new();
        for directory in on_path.chain(versioned) {
            // A directory of links stands for where they lead: the programs look beside themselves for their files.
            if let Ok(initdb) = fs::canonicalize(directory.join("initdb"))
                && let Some(bin) = initdb.parent()
                && !candidates.iter().any(|seen| seen == bin)
            {
                candidates.push(bin.to_owned());
            }
        }
        candidates
    }
}

async fn usable_nats(program: &Path) -> Result<(), String> {
    let output = version_of(program).await?;
    let (least_major, least_minor) = NATS_AT_LEAST;
    match numbers(&output).as_slice() {
        [major, minor, ..] if (*major, *minor) >= NATS_AT_LEAST => Ok(()),
        [major, minor, ..] => Err(format!(
            "it is nats-server {major}.{minor}, and {least_major}.{least_minor} or newer is needed"
        )),
        _ => Err(format!(
            "`--version` says `{}`, which is no version",
            first_line(&output)
        )),
    }
}

/// Its major version.
async fn usable_postgres(bin: &Path, account: Option<&Account>) -> Result<u32, String> {
    for name in ["postgres", "initdb"] {
        let program = bin.join(name);
        if !program.is_file() {
            return Err(format!("there is no `{name}` in it"));
        }
        if let Some(account) = account
            && let Err(closed) = account.reaches(&program)
        {
            return Err(format!(
                "user `{}`, which PostgreSQL is to run as, may not enter {}",
                account.name,
                closed.display()
            ));
        }
    }
    let output = version_of(&bin.join("postgres")).await?;
    match numbers(&output).first() {
        Some(major) if *major >= POSTGRES_AT_LEAST => Ok(*major),
        Some(major) => Err(format!(
            "it is PostgreSQL {major}, and {POSTGRES_AT_LEAST} or newer is needed"
        )),
        None => Err(format!(
            "`--version` says `{}`, which is no version",
            first_line(&output)
        )),
    }
}

async fn version_of(program: &Path) -> Result<String, String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(Duration::from_secs(10), output).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => Err(format!(
            "`--version` fails: {}",
            first_line(&String::from_utf8_lossy(&output.stderr))
        )),
        Ok(Err(error)) => Err(format!("it cannot be executed: {error}")),
        Err(_) => Err("`--version` does not answer".to_owned()),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The numbers of the first word that begins with a digit, a leading `v` aside: `v2.15.1` gives 2, 15, 1.
fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .map(|word| {
            word.split(|other: char| !other.is_ascii_digit() && other != '.')
                .take(1)
                .flat_map(|word| word.split('.'))
                .map_while(|part| part.parse().ok())
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn reads_versions() {
        let table: &[(&str, &[u32])] = &[
            ("nats-server: v2.15.1\n", &[2, 15, 1]),
            ("nats-server: v2.12.0-RC.3", &[2, 12, 0]),
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", &[15, 14]),
            ("postgres (PostgreSQL) 18beta1", &[18]),
            ("hello", &[]),
            ("", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(numbers(text), *expected, "{text}");
        }
    }

    fn program(path: &Path, prints: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\necho '{prints}'\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn search(root: &Path, directories: &[&str]) -> Search {
        Search {
            nats_server: None,
            postgres_bin: None,
            path: env::join_paths(directories.iter().map(|name| root.join(name))).unwrap(),
            postgres_roots: vec![root.join("versions")],
            cache: root.join("cache"),
        }
    }

    #[tokio::test]
    async fn passes_over_a_nats_server_that_is_too_old() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("old/nats-server"), "nats-server: v2.9.10");
        program(&dir.path().join("odd/nats-server"), "what?");
        program(&dir.path().join("new/nats-server"), "nats-server: v2.12.0");
        let found = search(dir.path(), &["old", "odd", "none", "new"])
            .nats_server(&Progress::Silent)
            .await
            .unwrap();
        assert_eq!(found, dir.path().join("new/nats-server"));
        let reason = usable_nats(&dir.path().join("old/nats-server")).await.unwrap_err();
        assert_eq!(reason, "it is nats-server 2.9, and 2.12 or newer is needed");
    }

    #[tokio::test]
    async fn a_named_server_that_is_too_old_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("old/nats-server"), "nats-server: v2.9.10");
        program(&dir.path().join("new/nats-server"), "nats-server: v2.15.1");
        let mut search = search(dir.path(), &["new"]);
        search.nats_server = Some(("KNARR_NATS_SERVER", dir.path().join("old/nats-server")));
        let error = search.nats_server(&Progress::Silent).await.unwrap_err();
        assert_eq!(error.code().id, "KN0364");
        assert!(error.to_string().contains("2.12 or newer is needed"), "{error}");
    }

    #[tokio::test]
    async fn takes_the_newest_postgres_or_the_one_the_data_is_of() {
        let dir = tempfile::tempdir().unwrap();
        for (directory, version) in [
            ("on-path", "15.2"),
            ("versions/14/bin", "14.9"),
            ("versions/17/bin", "17.1"),
        ] {
            program(
                &dir.path().join(directory).join("postgres"),
                &format!("postgres (PostgreSQL) {version}"),
            );
            program(&dir.path().join(directory).join("initdb"), "initdb");
        }
        let search = search(dir.path(), &["on-path"]);
        let root = dir.path().canonicalize().unwrap();
        for (major, expected) in [
            (None, "versions/17/bin"),
            (Some(15), "on-path"),
            (Some(17), "versions/17/bin"),
        ] {
            let found = search.postgres_bin(None, major, &Progress::Silent).await.unwrap();
            assert_eq!(found, root.join(expected), "{major:?}");
        }
        let error = search
            .postgres_bin(None, Some(14), &Progress::Silent)
            .await
            .unwrap_err();
        assert!(matches!(error, DevError::WrongMajor { data_major: 14, .. }), "{error}");
    }
}
