//! Every command of `mm`, with the data set `template-name`.

fn main() -> std::process::ExitCode {
    mm_cli::Program::new().dataset(template_name::READER).run()
}
