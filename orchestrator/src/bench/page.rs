//! How what a measurement found is laid out for people.

use owo_colors::OwoColorize as _;

use super::footprint::Footprint;
use super::latency::Latency;
use crate::cli::globals::Look;
use crate::cli::output;

/// A title, a line for each thing that was measured, and what to think of it.
pub(super) struct Page<'a> {
    look: &'a Look,
    text: String,
}

impl<'a> Page<'a> {
    pub(super) fn new(look: &'a Look, title: &str, what: &str) -> Self {
        Self {
            look,
            text: format!("{}  {what}\n\n", output::bold(look, title)),
        }
    }

    /// `name  text`, the texts below each other.
    pub(super) fn line(&mut self, name: &str, text: &str) {
        let name = output::dim(self.look, &format!("{name:<15}"));
        self.text.push_str(&format!("  {name}{text}\n"));
    }

    pub(super) fn latency(&mut self, name: &str, latency: Latency) {
        let Latency { p50, p90, p99, max } = latency;
        let quantiles = [("p50", p50), ("p90", p90), ("p99", p99), ("max", max)];
        let quantiles = quantiles.map(|(name, ms)| format!("{} {}", output::dim(self.look, name), short(ms)));
        self.line(name, &quantiles.join("   "));
    }

    pub(super) fn footprint(&mut self, footprint: &Footprint, whose: &str) {
        let database = short(footprint.database_mb);
        let grew = short(footprint.database_grew_mb);
        self.line("database", &format!("{database} MB, {grew} of them by the {whose}"));
        if let (Some(now), Some(peak)) = (footprint.memory_mb, footprint.memory_peak_mb) {
            self.line("orchestrator", &format!("{} MB, {} at most", short(now), short(peak)));
        }
    }

    /// As it is, with what belongs before and after it.
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    pub(super) fn good(&mut self, text: &str) {
        self.verdict(true, text);
    }

    pub(super) fn bad(&mut self, text: &str) {
        self.verdict(false, text);
    }

    /// Those that are not nought.
    pub(super) fn wrong(&mut self, counts: &[(u64, &str)]) {
        for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
            self.bad(&format!("{count} {what}"));
        }
    }

    /// Those that are not nought, and no fault.
    pub(super) fn notes(&mut self, counts: &[(u64, &str)]) {
        for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
            self.text.push_str(&format!("  {count} {what}\n"));
        }
    }

    /// The last of it.
    pub(super) fn findings(mut self, findings: &[String]) -> String {
        for finding in findings {
            let finding = output::dim(self.look, &output::cut(finding, 400));
            self.text.push_str(&format!("    {finding}\n"));
        }
        self.text
    }

    /// `✓ …` in green or `✗ …` in red.
    fn verdict(&mut self, good: bool, text: &str) {
        let text = match good {
            true => format!("✓ {text}"),
            false => format!("✗ {text}"),
        };
        let text = match (self.look.color, good) {
            (true, true) => text.green().to_string(),
            (true, false) => text.red().to_string(),
            (false, _) => text,
        };
        self.text.push_str(&format!("  {text}\n"));
    }
}

/// With as many digits as say something.
pub(super) fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => thousands(number, 0),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

pub(super) fn thousands(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut out = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let table = [
            (0.0, 0, "0"),
            (999.95, 1, "1,000.0"),
            (-1234567.0, 0, "-1,234,567"),
            (12.0, 1, "12.0"),
        ];
        for (number, decimals, text) in table {
            assert_eq!(thousands(number, decimals), text);
        }
    }
}
