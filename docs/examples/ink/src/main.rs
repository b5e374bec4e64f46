//! Every command of `mm`, with the modality `ink` and the data set `chinese-characters`.

fn main() -> std::process::ExitCode {
    mm_cli::Program::new().encoders(ink::register).dataset(ink::READER).run()
}
