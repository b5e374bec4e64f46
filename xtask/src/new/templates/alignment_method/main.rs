//! Every command of `mm`, with the alignment method `template_name`.

fn main() -> std::process::ExitCode {
    mm_cli::Program::new().alignment_method(template_name::TemplateName).run()
}
