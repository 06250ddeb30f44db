//! A bar on standard error for work that takes a while.

use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for one stage at a time. Where standard error is no terminal it shows nothing. It goes when it is dropped.
pub struct DownloadBar {
    bar: Mutex<ProgressBar>,
}

impl DownloadBar {
    /// A bar that has not begun.
    pub fn new() -> Self {
        Self { bar: Mutex::new(ProgressBar::hidden()) }
    }

    /// Shows `stage` at `done` of `total` bytes; of an unknown total a spinner is shown.
    pub fn show(&self, stage: &str, done: u64, total: Option<u64>) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if bar.message() != stage || bar.length() != total {
            bar.finish_and_clear();
            // Made whole, as each change of a bar that is shown is drawn.
            let new = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            *bar = new.with_style(style(total.is_some())).with_message(stage.to_owned());
        }
        bar.set_position(done);
    }
}

impl Default for DownloadBar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DownloadBar {
    fn drop(&mut self) {
        self.bar.get_mut().unwrap_or_else(PoisonError::into_inner).finish_and_clear();
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
        let shown = || {
            let bar = bar.bar.lock().unwrap();
            (bar.message(), bar.position(), bar.length())
        };
        bar.show("Loading", 10, Some(100));
        assert_eq!(shown(), ("Loading".to_owned(), 10, Some(100)));
        bar.show("Unpacking", 5, None);
        assert_eq!(shown(), ("Unpacking".to_owned(), 5, None));
    }
}
