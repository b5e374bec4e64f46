//! Raw values on the command line: `--text`, `--image`, `--audio`, `--video`, and `--input` for any modality.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use mm_core::{Modality, Source};
use std::str::FromStr;

/// Names of the options of one modality each, which are names of modalities too.
const KINDS: [&str; 4] = ["text", "image", "audio", "video"];

/// Ids of all options that take a raw value.
pub(crate) const INPUT_OPTIONS: [&str; 5] = ["text", "image", "audio", "video", "input"];

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
    /// Value of any modality: a file that exists, else JSON, else text; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Inputs")]
    input: Vec<InputValue>,
}

/// One raw value of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputValue {
    /// The modality.
    pub(crate) kind: String,
    /// The text or the path as it was typed.
    pub(crate) value: String,
}

impl InputValue {
    pub(crate) fn modality(&self) -> Modality {
        Modality::from(self.kind.as_str())
    }

    pub(crate) fn source(&self) -> Source {
        mm_data::parse_source(&self.kind, &self.value)
    }
}

impl FromStr for InputValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() && !value.is_empty() => {
                Ok(Self { kind: name.trim().to_owned(), value: value.to_owned() })
            }
            _ => Err("expected NAME=VALUE, for instance image=photo.png or sensor=readings.csv".to_owned()),
        }
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
        let UnorderedInputs { text, files, input } = UnorderedInputs::from_arg_matches(matches)?;
        let indices = |id: &str| matches.indices_of(id).into_iter().flatten();
        let mut values: Vec<(usize, InputValue)> = indices("input").zip(input).collect();
        for (kind, list) in KINDS.into_iter().zip([text, files.image, files.audio, files.video]) {
            let list = list.into_iter().map(|value| InputValue { kind: kind.to_owned(), value });
            values.extend(indices(kind).zip(list));
        }
        values.sort_by_key(|(index, _)| *index);
        Ok(Self(values.into_iter().map(|(_, value)| value).collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_modality_keep_the_order_of_the_command_line() {
        let command = InputArgs::augment_args(Command::new("mm"));
        let arguments = ["mm", "--input", "sensor=[[1, 2]]", "--text", "a=b", "--input", "text=x", "--image", "a.png"];
        let found = InputArgs::from_arg_matches(&command.clone().get_matches_from(arguments)).unwrap().0;
        let names: Vec<(&str, &str)> = found.iter().map(|v| (v.kind.as_str(), v.value.as_str())).collect();
        assert_eq!(names, [("sensor", "[[1, 2]]"), ("text", "a=b"), ("text", "x"), ("image", "a.png")]);
        assert_eq!(found[0].source(), Source::Value(serde_json::json!([[1, 2]])));
        assert_eq!(found[2].source(), Source::Text("x".into()));
        for wrong in ["sensor", "=x", "sensor="] {
            let error = command.clone().try_get_matches_from(["mm", "--input", wrong]).unwrap_err().to_string();
            assert!(error.contains("expected NAME=VALUE"), "{error}");
        }
    }
}
