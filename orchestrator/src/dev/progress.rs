//! Tells a person what is being waited for: a spinner on a terminal, plain lines on stderr elsewhere, nothing in tests.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug, Clone)]
pub enum Progress {
    Silent,
    Lines,
    Spinner(ProgressBar),
}

impl Progress {
    /// What suits stderr.
    pub fn for_stderr() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(80));
        Self::Spinner(bar)
    }

    /// What is being done now; replaced by the next one.
    pub fn step(&self, text: &str) {
        match self {
            Self::Silent => tracing::debug!("{text}"),
            Self::Lines => eprintln!("{text}"),
            Self::Spinner(bar) => bar.set_message(text.to_owned()),
        }
    }

    /// Something to remember: stays on the screen.
    pub fn note(&self, text: &str) {
        match self {
            Self::Silent => tracing::info!("{text}"),
            Self::Lines => eprintln!("{text}"),
            Self::Spinner(bar) => bar.println(text),
        }
    }

    pub fn finish(&self) {
        if let Self::Spinner(bar) = self {
            bar.finish_and_clear();
        }
    }
}
