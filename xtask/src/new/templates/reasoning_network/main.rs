//! Every command of `mm`, with the reasoning network `template_name`.

fn main() -> std::process::ExitCode {
    mm_cli::Program::new().reasoning_network(template_name::SPEC).run()
}
