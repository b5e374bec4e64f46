//! Every command of `mm`, with the modality `template_name`.

fn main() -> std::process::ExitCode {
    mm_cli::run(template_name::register)
}
