//! Every command of `mm`, with the task `template_name`.

fn main() -> std::process::ExitCode {
    mm_cli::Program::new().task(template_name::spec()).run()
}
