//! The commands, one file each; a command is registered by one line in `commands!`.

use crate::context::Context;
pub(crate) use launch::follow_launcher;

/// Declares the modules, the sub-command enum, its dispatch, and the groups of the help page.
macro_rules! commands {
    ($($group:literal: $($variant:ident => $module:ident),+;)+) => {
        $($(mod $module;)+)+

        /// A sub-command with its arguments.
        #[derive(clap::Subcommand)]
        pub(crate) enum Command {
            $($($variant($module::Arguments),)+)+
        }

        impl Command {
            pub(crate) fn run(&self, context: &Context) -> anyhow::Result<()> {
                match self {
                    $($(Self::$variant(arguments) => $module::run(arguments, context),)+)+
                }
            }
        }

        /// Group headings with the modules of their commands.
        const GROUPS: &[(&str, &[&str])] = &[$(($group, &[$(stringify!($module)),+])),+];
    };
}

commands! {
    "Data": Inspect => inspect, Prepare => prepare, Audit => audit;
    "Pretrained models": Embed => embed, Similarity => similarity, Classify => classify, Rerank => rerank, Caption => caption,
        Answer => answer, Transcribe => transcribe, Chat => chat, Merge => merge, Words => words;
    "Training": Train => train, Launch => launch, Fit => fit, FusionSearch => fusion_search;
    "Search": Index => index, Search => search;
    "Serving": Serve => serve;
    "Trained runs": Eval => eval, Predict => predict, Report => report;
    "Arrays of features": Align => align, Diagnose => diagnose;
    "Downloads and pipelines": Models => models, Data => data, Run => run, Setup => setup;
    "This program": Doctor => doctor, Completions => completions, Man => man;
}

/// The help page with the commands in groups.
pub(crate) fn help_template(command: &clap::Command) -> String {
    let mut list = String::new();
    for (group, modules) in GROUPS {
        list += &format!("{group}:\n");
        for module in *modules {
            let name = module.replace('_', "-");
            let about = command.find_subcommand(&name).and_then(|c| c.get_about()).map(ToString::to_string);
            list += &format!("  {name:14} {}\n", about.unwrap_or_default());
        }
        list.push('\n');
    }
    format!("{{about}}\n\n{{usage-heading}} {{usage}}\n\n{list}{{options}}{{after-help}}")
}

/// The command with these values for the options of these ids, in all sub-commands.
pub(crate) fn with_values(command: clap::Command, ids: &[&str], values: &[String]) -> clap::Command {
    let set = |argument: clap::Arg| {
        if !ids.contains(&argument.get_id().as_str()) {
            return argument;
        }
        // clap owns static texts only; a completion script is written once a process.
        let values = values.iter().map(|value| clap::builder::PossibleValue::new(&*value.clone().leak()));
        argument.value_parser(clap::builder::PossibleValuesParser::new(values))
    };
    command.mut_args(set).mut_subcommands(|sub| with_values(sub, ids, values))
}
