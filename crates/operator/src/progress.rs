//! A bar on standard error for work that takes a while.

use std::borrow::Cow;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for one file at a time. Where standard error is no terminal it shows nothing.
pub struct DownloadBar {
    bar: ProgressBar,
}

impl DownloadBar {
    /// A bar that has not begun.
    pub fn new() -> Self {
        Self { bar: ProgressBar::new(0) }
    }

    /// Shows `stage` at `done` of `total` bytes; of an unknown total a spinner is shown.
    pub fn show(&self, stage: impl Into<Cow<'static, str>>, done: u64, total: Option<u64>) {
        let stage = stage.into();
        let known = total.unwrap_or(0);
        if self.bar.message() != stage || self.bar.length() != Some(known) {
            self.bar.set_style(style(total.is_some()));
            self.bar.set_length(known);
            self.bar.set_message(stage.into_owned());
            self.bar.reset_eta();
        }
        self.bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Default for DownloadBar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DownloadBar {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(total_is_known: bool) -> ProgressStyle {
    let template = if total_is_known {
        "{msg:12} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"
    } else {
        "{msg:12} {spinner} {bytes} {bytes_per_sec}"
    };
    ProgressStyle::with_template(template).expect("both templates are valid").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_with_and_without_a_total_are_shown() {
        let bar = DownloadBar::new();
        bar.show("Loading", 10, Some(100));
        bar.show("Unpacking", 5, None);
        assert_eq!((bar.bar.position(), bar.bar.length()), (5, Some(0)));
        assert_eq!(bar.bar.message(), "Unpacking");
    }
}
