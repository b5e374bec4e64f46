//! The program as a value: every command of `mm`, and what other crates add to it.

use crate::{
    Cli, commands,
    context::{Context, Registries},
    describe_number,
    exit::{self, program_name},
    fetch, logging, output,
};
use clap::FromArgMatches;
use mm_align::AlignmentMethod;
use mm_core::Registry;
use mm_data::datasets::{DatasetReader, DatasetRegistry, datasets};
use mm_fusion::OperatorSpec;
use mm_reason::reasoning::NetworkSpec;
use mm_tasks::{TaskRegistry, TaskSpec, alignment::MethodRegistry};
use std::process::ExitCode;

/// Every command of `mm`, with the modalities, tasks, methods and readers that other crates add: the `main` of a
/// program of your own.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     mm_cli::Program::new()
///         .encoders(|registry| {
///             // my_modality::register(registry);
///             let _ = registry;
///         })
///         // .task(my_task::spec())
///         // .alignment_method(my_method::Whitening)
///         .run()
/// }
/// ```
#[must_use = "a program does nothing until it is run"]
pub struct Program {
    encoders: Registry,
    tasks: TaskRegistry,
    methods: MethodRegistry,
    datasets: DatasetRegistry,
    /// A registration that failed; reported when the program is run.
    failed: Option<anyhow::Error>,
}

impl Default for Program {
    fn default() -> Self {
        let mut encoders = mm_tasks::registry();
        mm_tabular::register(&mut encoders);
        Self {
            encoders,
            tasks: mm_tasks::tasks(),
            methods: mm_tasks::alignment::methods(),
            datasets: datasets(),
            failed: None,
        }
    }
}

impl Program {
    /// The program `mm` itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds encoders, and with them modalities: `register` receives the registry of encoders.
    pub fn encoders(mut self, register: impl FnOnce(&mut Registry)) -> Self {
        register(&mut self.encoders);
        self
    }

    /// Adds a task, which a config names as `task`; one of the same name is replaced.
    pub fn task(mut self, spec: TaskSpec) -> Self {
        self.tasks.register(spec);
        self
    }

    /// Adds a method of `mm align`; one of the same name is replaced.
    pub fn alignment_method(mut self, method: impl AlignmentMethod + 'static) -> Self {
        self.methods.register(method);
        self
    }

    /// Adds a data set of `mm prepare`; one of the same name is replaced.
    pub fn dataset(mut self, reader: DatasetReader) -> Self {
        self.datasets.register(reader);
        self
    }

    /// Adds a fusion operator, which a config names as `fusion.operator.kind`, for the whole process. A kind that
    /// exists ends the program with an error.
    pub fn fusion_operator(mut self, spec: OperatorSpec) -> Self {
        let registered = mm_fusion::register_operator(spec);
        self.note_failure(registered.map_err(Into::into));
        self
    }

    /// Adds a reasoning network, which a config names as `reasoning.network.kind`, for the whole process. A kind that
    /// exists ends the program with an error.
    pub fn reasoning_network(mut self, spec: NetworkSpec) -> Self {
        let registered = mm_reason::reasoning::register_network(spec);
        self.note_failure(registered.map_err(Into::into));
        self
    }

    fn note_failure(&mut self, registered: anyhow::Result<()>) {
        if let Err(error) = registered {
            self.failed.get_or_insert(error);
        }
    }

    /// Parses the arguments, runs the command and prints its error. The result is the exit code: 0 success, 1 failure,
    /// 2 usage error, 130 interrupted.
    pub fn run(self) -> ExitCode {
        mm_core::retain_freed_memory();
        let parsed = own_command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
        let cli = match parsed {
            Ok(cli) => cli,
            Err(error) => return report_usage(&describe_number(error)),
        };
        // Not earlier: help and usage errors need no second start.
        mm_core::limit_spinning();
        logging::start(cli.global.verbose);
        output::set_quiet(cli.global.quiet);
        if let Err(error) = commands::follow_launcher() {
            return exit::report(&error);
        }
        let threads = cli.global.threads.map_or_else(mm_core::available_threads, usize::from);
        mm_core::set_num_threads(threads);
        if let Some(error) = self.failed {
            return exit::report(&error);
        }
        // A program with a fetcher of its own keeps it.
        mm_data::set_url_fetcher(fetch::CachedFetcher::new());
        let Self { encoders, tasks, methods, datasets, failed: _ } = self;
        let registries = Registries { encoders, tasks, methods, datasets };
        let context = Context::new(cli.global.json, cli.global.device, threads, registries);
        match cli.command.run(&context) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => exit::report(&error),
        }
    }
}

/// Prints a usage error, or the help or version that was asked for.
fn report_usage(error: &clap::Error) -> ExitCode {
    // Help and version are results.
    let printed = error.print();
    if !error.use_stderr() {
        output::written(printed.and_then(|()| std::io::Write::flush(&mut std::io::stdout())));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The grammar of the command line under this program's name.
pub(crate) fn own_command() -> clap::Command {
    let command = crate::command();
    let name = program_name();
    if name == "mm" { command } else { renamed(command, name).name(name) }
}

/// Examples call the program by its name.
fn renamed(command: clap::Command, name: &str) -> clap::Command {
    let examples = command.get_after_help().map(|text| text.to_string().replace("\n  mm ", &format!("\n  {name} ")));
    let command = match examples {
        Some(examples) => command.after_help(examples),
        None => command,
    };
    command.mut_subcommands(|sub| renamed(sub, name))
}

/// The grammar with the modalities that can be named, for completions.
pub(crate) fn command_with_modalities(modalities: &[String]) -> clap::Command {
    commands::with_values(own_command(), &["modality", "exclude_modality"], modalities)
}
