//! Raw values on the command line: `--text`, `--image`, `--audio`, `--video`.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use mm_core::{Modality, Source};
use std::path::PathBuf;

/// Names of the options, which are names of modalities too.
pub(crate) const KINDS: [&str; 4] = ["text", "image", "audio", "video"];

/// Files of each modality.
#[derive(Args)]
pub(crate) struct FileArgs {
    /// Image file; may be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    pub(crate) image: Vec<String>,
    /// Audio file; may be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    pub(crate) audio: Vec<String>,
    /// Video file; may be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    pub(crate) video: Vec<String>,
}

#[derive(Args)]
struct UnorderedInputs {
    /// Text; may be repeated.
    #[arg(long, value_name = "TEXT", help_heading = "Inputs")]
    text: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
}

/// One raw value of the command line.
#[derive(Debug, Clone)]
pub(crate) struct InputValue {
    /// Its option, which is its modality.
    pub(crate) kind: &'static str,
    /// The text or the path as it was typed.
    pub(crate) value: String,
}

impl InputValue {
    pub(crate) fn modality(&self) -> Modality {
        Modality::from(self.kind)
    }

    pub(crate) fn source(&self) -> Source {
        if self.kind == "text" { Source::Text(self.value.clone()) } else { Source::Path(PathBuf::from(&self.value)) }
    }
}

/// Raw values of any modality in the order of the command line; clap alone would group them by option.
pub(crate) struct InputArgs(pub(crate) Vec<InputValue>);

impl Args for InputArgs {
    fn augment_args(command: Command) -> Command {
        UnorderedInputs::augment_args(command)
    }
    fn augment_args_for_update(command: Command) -> Command {
        UnorderedInputs::augment_args_for_update(command)
    }
}

impl FromArgMatches for InputArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let UnorderedInputs { text, files } = UnorderedInputs::from_arg_matches(matches)?;
        let mut values = Vec::new();
        for (kind, list) in KINDS.into_iter().zip([text, files.image, files.audio, files.video]) {
            let indices = matches.indices_of(kind).into_iter().flatten();
            values.extend(indices.zip(list).map(|(index, value)| (index, InputValue { kind, value })));
        }
        values.sort_by_key(|(index, _)| *index);
        Ok(Self(values.into_iter().map(|(_, value)| value).collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
