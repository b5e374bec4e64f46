//! Every command of `mm`, with the fusion operator `template_name`.

fn main() -> std::process::ExitCode {
    mm_cli::Program::new().fusion_operator(template_name::SPEC).run()
}
